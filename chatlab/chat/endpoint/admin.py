"""The pages for operators, not for clients: `/metrics` and `/readyz`, and who may see them.

    --admin-port 9000      on a separate port, on loopback unless --admin-host says otherwise; not on the chat's port
    --admin-key KEY        with the key: `Authorization: Bearer KEY`; on the chat's port, if there is no admin port
    neither                on the chat's port, from this machine only, and not through a proxy

A public port must not reveal how many users are connected, how fast the broker is, and what it may lose. With neither
option, the chat has to distinguish a program on this machine from a proxy on this machine that forwards a request.
Proxies can be recognized: they name the client in a header, pass its Host on, or speak HTTP/1.0. A proxy that does none
of this looks like a local program; behind such a proxy, use a port or a key.

`/healthz` is public, since it reveals nothing. Left out: TLS, and users with separate rights.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from chatlab.classroom import WILDCARDS, host_to_open, in_url
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.http.hosts import require_known_host
from chatlab.net.http.server import HttpServer
from chatlab.proxies import is_loopback
from chatlab.websocket.handshake import known_names

__all__ = ["Admin", "AdminSettings"]

MIN_KEY = 16  # characters of a key: nothing limits the number of attempts
NOT_ON_THIS_PORT = "not on this port: see --admin-port\n"
WRONG_KEY = "this page needs `Authorization: Bearer KEY`, with the key of --admin-key\n"
LOCAL_ONLY = (
    "this page is only for the machine that the chat runs on, and not through a proxy; "
    "start the chat with --admin-port for a separate port, or with --admin-key for a key\n"
)
# RFC 7239; RFC 9110, section 7.6.3; and their predecessors.
PROXY_HEADERS = {"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"}
PROXY_HEADER_PREFIXES = ("x-forwarded-", "x-original-", "x-envoy-", "x-amzn-")


@dataclass(frozen=True)
class AdminSettings:
    """Where `/metrics` and `/readyz` are, and who may see them. Raise ValueError for a key that could be guessed."""

    port: int | None = None
    host: str = "127.0.0.1"
    key: str = ""

    def __post_init__(self) -> None:
        """Reject a short key."""
        if self.key and len(self.key) < MIN_KEY:
            raise ValueError(f"the admin key has {len(self.key)} characters; it needs at least {MIN_KEY}")


class Admin:
    """The pages at `routes`, protected as `settings` say; refusals are logged to `log`."""

    def __init__(
        self,
        routes: Mapping[str, Handler],
        settings: AdminSettings,
        log: logging.Logger,
        host_names: Sequence[str] = (),
    ) -> None:
        self.port: int | None = None
        self.url = ""  # of the admin port
        self._routes = routes
        self._settings = settings
        self._refusals = ThrottledLog(log)
        self._http: HttpServer | None = None
        if settings.port is not None:
            app = web.Application()
            names = known_names((settings.host, *host_names))
            app.middlewares.append(require_known_host(names, (), self._refusals))
            for path, handler in routes.items():
                app.router.add_get(path, self._for_the_key(handler) if settings.key else handler)
            self._http = HttpServer(app, log)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the pages to the chat's port, or an answer that says where they are."""
        for path, handler in self._routes.items():
            if self._http is not None:
                router.add_get(path, _not_on_this_port)
            elif self._settings.key:
                router.add_get(path, self._for_the_key(handler))
            else:
                router.add_get(path, self._for_this_machine(handler))

    async def listen(self) -> None:
        """Start listening on the admin port, if there is one. Raise OSError if it is taken."""
        if self._http is not None:
            host = self._settings.host
            await self._http.listen(host, self._settings.port or 0)
            self.port = self._http.port
            host = host_to_open(self._http.host if self._http.host in WILDCARDS else host)
            self.url = f"http://{in_url(host)}:{self.port}/"

    async def aclose(self, deadline: float) -> None:
        """Stop, at `deadline` on the loop's clock at the latest."""
        if self._http is not None:
            await self._http.aclose(deadline)

    def _for_the_key(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
            known = secrets.compare_digest(given.strip().encode(errors="replace"), self._settings.key.encode())
            if scheme.lower() == "bearer" and known:
                return await handler(request)
            self._refusals.warning("admin page refused: no key", extra={"peer": request.remote})
            return web.Response(status=401, text=WRONG_KEY, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})

        return answer

    def _for_this_machine(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if is_local(request):
                return await handler(request)
            self._refusals.info("admin page refused: not from this machine", extra={"peer": request.remote})
            return web.Response(status=403, text=LOCAL_ONLY)

        return answer


async def _not_on_this_port(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404, text=NOT_ON_THIS_PORT)


def is_local(request: web.Request) -> bool:
    """Return whether a program on this machine sent the request itself, as far as the request shows."""
    names = {name.lower() for name in request.headers}
    if (
        not _is_loopback_address(request.remote)
        or names & PROXY_HEADERS
        or any(name.startswith(PROXY_HEADER_PREFIXES) for name in names)
    ):
        return False
    if hdrs.UPGRADE not in request.headers and "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower():
        return False  # an nginx that was configured for WebSocket sends this
    host = request.headers.get(hdrs.HOST)
    if host is None:  # a balancer's own health check, in HTTP/1.0
        return True
    return request.version >= (1, 1) and _is_our_address(host, request)


def _is_our_address(host: str, request: web.Request) -> bool:
    """Return whether `host` is loopback with the port the request arrived on; a proxy's port would differ."""
    try:
        asked = urlsplit(f"//{host}")
        port = asked.port or 80
    except ValueError:
        return False
    ours = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return is_loopback(asked.hostname or "") and ours is not None and port == ours[1]


def _is_loopback_address(peer: str | None) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # how an IPv6 socket sees 127.0.0.1
    return (mapped or address).is_loopback
