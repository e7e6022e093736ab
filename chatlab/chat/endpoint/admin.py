"""What is for those who run the chat, and not for its clients: `/metrics` and `/readyz`, and who may see them.

    --admin-port 9000      on a port of their own, on loopback unless --admin-host says otherwise; not on the chat's
    --admin-key KEY        to who knows the key: `Authorization: Bearer KEY`; on the chat's port, if there is no other
    neither                on the chat's port, to this machine alone, and not through a proxy

How many people are here, how fast the broker is, and what it may lose is nobody's business on a public port. With
neither option the chat must therefore tell a program on this machine from a proxy on this machine that asks for
somebody else. Proxies give themselves away: they name the client in a header, pass its Host on, or speak HTTP/1.0. One
that does none of this looks like this machine; before such a one, use a port or a key.

`/healthz` is for everybody, since it says nothing. Left out: TLS, and users with rights of their own.
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
from chatlab.net.http.hosts import judged_by_name
from chatlab.net.http.server import HttpServer
from chatlab.proxies import is_loopback
from chatlab.websocket.handshake import known_names

__all__ = ["Admin", "AdminSettings"]

MIN_KEY = 16  # characters of a key: it may be tried as often as the network carries it
ELSEWHERE = "not on this port: see --admin-port\n"
WRONG_KEY = "this wants `Authorization: Bearer KEY`, with the key of --admin-key\n"
HERE_ALONE = (
    "this is for the machine the chat runs on, and not through a proxy; "
    "--admin-port gives it a port of its own, --admin-key a key\n"
)
# RFC 7239, RFC 9110 7.6.3, and what was there before them.
OF_PROXIES = {"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"}
OF_PROXIES_TOO = ("x-forwarded-", "x-original-", "x-envoy-", "x-amzn-")


@dataclass(frozen=True)
class AdminSettings:
    """Where `/metrics` and `/readyz` are, and who may see them. ValueError for a key that could be guessed."""

    port: int | None = None
    host: str = "127.0.0.1"
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse a short key."""
        if self.key and len(self.key) < MIN_KEY:
            raise ValueError(f"the admin key has {len(self.key)} characters; it needs {MIN_KEY} at least")


class Admin:
    """The pages at `routes`, shown as `settings` say; `log` gets a line for each client that is refused."""

    def __init__(
        self,
        routes: Mapping[str, Handler],
        settings: AdminSettings,
        log: logging.Logger,
        host_names: Sequence[str] = (),
    ) -> None:
        self.port: int | None = None
        self.url = ""  # of its own port
        self._routes = routes
        self._settings = settings
        self._refusals = ThrottledLog(log)
        self._http: HttpServer | None = None
        if settings.port is not None:
            app = web.Application()
            names = known_names((settings.host, *host_names))
            app.middlewares.append(judged_by_name(names, (), self._refusals))
            for path, handler in routes.items():
                app.router.add_get(path, self._for_the_key(handler) if settings.key else handler)
            self._http = HttpServer(app, log)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the pages to the chat's own port, or what is said there instead."""
        for path, handler in self._routes.items():
            if self._http is not None:
                router.add_get(path, _elsewhere)
            elif self._settings.key:
                router.add_get(path, self._for_the_key(handler))
            else:
                router.add_get(path, self._for_this_machine(handler))

    async def listen(self) -> None:
        """Take connections on its own port, if it has one. OSError if that is taken."""
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
            if comes_from_here(request):
                return await handler(request)
            self._refusals.info("admin page refused: not from this machine", extra={"peer": request.remote})
            return web.Response(status=403, text=HERE_ALONE)

        return answer


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404, text=ELSEWHERE)


def comes_from_here(request: web.Request) -> bool:
    """Say whether a program of this machine asks for itself, as far as a request can tell."""
    names = {name.lower() for name in request.headers}
    if not _is_here(request.remote) or names & OF_PROXIES or any(name.startswith(OF_PROXIES_TOO) for name in names):
        return False
    if hdrs.UPGRADE not in request.headers and "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower():
        return False  # what an nginx sends that was set up for WebSocket alone
    host = request.headers.get(hdrs.HOST)
    if host is None:  # a balancer's health check in HTTP/1.0: it is nobody's request but its own
        return True
    return request.version >= (1, 1) and _is_our_address(host, request)


def _is_our_address(host: str, request: web.Request) -> bool:
    """Say whether `host` is loopback with the port that the request came in by: a proxy's own has another."""
    try:
        asked = urlsplit(f"//{host}")
        port = asked.port or 80
    except ValueError:
        return False
    ours = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return is_loopback(asked.hostname or "") and ours is not None and port == ours[1]


def _is_here(peer: str | None) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # how an IPv6 socket sees 127.0.0.1
    return (mapped or address).is_loopback
