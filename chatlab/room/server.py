"""The room's server: the page and the WebSockets of the robust room, on one port. `start()` is the entry point."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, urlencode

from aiohttp import web

from chatlab.classroom import PAGE, CodeGuard, host_to_open, in_url, page_file
from chatlab.limits import RateLimit
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.connection_limits import ConnectionLimits, Refusals, TrustedProxies
from chatlab.net.endpoint import EndSettings, KeepAlive, WebSocketEnd
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.net.gate import REMEDY, Gate, refusal_text
from chatlab.net.http.hosts import require_known_host
from chatlab.net.http.server import HttpServer
from chatlab.net.http.upgrade import upgrade
from chatlab.net.memory_limit import HeldOctets
from chatlab.room.admission import PATH, Admission, asked_name, peer_address, query
from chatlab.room.metrics import RoomMetrics
from chatlab.room.room import Member, Room
from chatlab.websocket.connection import Connection
from chatlab.websocket.frames import Close, CloseCode
from chatlab.websocket.handshake import known_names

logger = logging.getLogger("chatlab.room")
refusals = ThrottledLog(logger)

SHUTDOWN_SECONDS = 2.0  # the time members have to answer our Close before their connections are dropped
OPEN_SECONDS = 5.0  # the time a client has to send its request
CLOSING = "the room is closing"


class Handler(Protocol):
    """What a server needs from a room."""

    async def aclose(self) -> None:
        """Stop the room's background work."""

    def metrics(self) -> RoomMetrics:
        """Return the room's current figures."""


class RoomServer:
    """A running room server; close it with `aclose()` or `async with`."""

    def __init__(
        self, room: Handler, host: str, port: int, code: str | None, close_connections: Callable[[], Awaitable[None]]
    ) -> None:
        self.room = room
        self.code = code
        self.port = port
        self.host = host_to_open(host)
        self.url = f"ws://{in_url(self.host)}:{self.port}{PATH}"
        self._close_connections = close_connections

    def join_url(self, name: str | None = None) -> str:
        """Return the URL to join with, including the room code if there is one: ws://127.0.0.1:8080/room?name=Ana."""
        fields = {"name": name, "code": self.code}
        text = urlencode({key: value for key, value in fields.items() if value}, quote_via=quote)
        return f"{self.url}?{text}" if text else self.url

    def page_url(self, host: str | None = None) -> str:
        """Return the page's URL; the code follows the #, which browsers never send to a server."""
        return f"http://{in_url(host or self.host)}:{self.port}/" + (f"#{self.code}" if self.code else "")

    def metrics(self) -> RoomMetrics:
        """Return the room's current figures."""
        return self.room.metrics()

    async def aclose(self) -> None:
        """Stop listening, close every member with 1001, and drop those that do not answer in time."""
        await self._close_connections()
        await self.room.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    host_names: Sequence[str] = (),
    code: str | None = None,
    policy: SlowReaderPolicy | None = None,
    rate: RateLimit | None = None,
    max_size: int = 1 << 16,
    compression: str | None = None,
    ping_interval: float = 20,
    ping_timeout: float = 20,
    send_buffer: int | None = None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 (it cannot change)
    trusted_proxies: Sequence[str] = (),
    room: Callable[[SlowReaderPolicy, RateLimit | None], Room] = Room,
) -> RoomServer:
    """Start the robust room; `port=0` picks a free port.

    `origins`: further origins whose pages may connect, such as https://example.org; "*" allows every origin.
    `host_names`: further names of this server; its addresses, localhost and names without a dot are always accepted.
    `code`: the required room code. `policy`: the slow-reader policy. `rate`: the rate limit; without one, a member can
    send as fast as the machine allows, which suits a benchmark but not a class. `max_size`: the size limit of a message
    in bytes; a larger one closes its sender with 1009. `ping_interval`, `ping_timeout`: the keep-alive, in seconds.

    `compression="deflate"` allows permessage-deflate. It is off by default because members could then not share bytes:
    every message is compressed separately for each member, with a separate context (some 300 KiB at zlib's defaults).

    `send_buffer`: the kernel's send buffer for each member, in bytes (SO_SNDBUF); None leaves the choice to the kernel,
    which allows a few megabytes. With a small buffer, a member that stops reading is noticed sooner.

    `limits`: the limits on connections. `trusted_proxies`: addresses or networks of proxies whose X-Forwarded-For
    header names the client, for `limits` and for the limit on guesses at the code.

    `room` creates the room from `policy` and `rate`: `Room` or a subclass.
    """
    policy = policy or SlowReaderPolicy()
    settings = EndSettings(
        KeepAlive(ping_interval, ping_timeout, Close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")),
        close_timeout=policy.drain_seconds + 1,  # a slow reader has `drain_seconds` to read as far as our Close
        held=HeldOctets(logger),
    )
    names = known_names((host, *host_names), origins)
    guard = None if code is None else CodeGuard(code)
    admission = Admission(tuple(origins), guard, compression == "deflate", names)
    gate = Gate.of(limits, Refusals(logger), TrustedProxies(trusted_proxies))
    endpoint = RoomEndpoint(room(policy, rate), admission, settings, max_size, gate, limits)
    http = HttpServer(
        endpoint.application(), logger, first_request_seconds=OPEN_SECONDS, send_buffer=send_buffer, gate=gate
    )
    try:
        await http.listen(host, port)
    except BaseException:
        await http.aclose(deadline=0)
        raise
    return RoomServer(endpoint.room, http.host, http.port, code, partial(endpoint.aclose, http))


class RoomEndpoint:
    """The HTTP endpoint of the robust room: the page, and its members' WebSockets."""

    def __init__(
        self,
        room: Room,
        admission: Admission,
        settings: EndSettings,
        max_size: int,
        gate: Gate,
        limits: ConnectionLimits,
    ) -> None:
        self.room = room
        self._gate = gate
        self._slots = limits.slots()  # of WebSockets, by the client behind a proxy; the gate's are of TCP connections
        self._admission = admission
        self._settings = settings
        self._max_size = max_size
        self._ends: set[WebSocketEnd] = set()
        self._closing = False

    def application(self) -> web.Application:
        """Return the application: one handler for every path."""
        app = web.Application()
        app.middlewares.append(require_known_host(self._admission.names, self._admission.origins, refusals))
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def aclose(self, http: HttpServer) -> None:
        """Close every member with 1001, and drop those that do not answer in time."""
        self._closing = True
        await http.stop_listening()
        # RFC 6455, 7.4.1: 1001 "indicates that an endpoint is "going away", such as a server going down"
        for end in list(self._ends):
            end.close(CloseCode.GOING_AWAY, CLOSING)
        await http.aclose(asyncio.get_running_loop().time() + SHUTDOWN_SECONDS)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in PAGE and request.method == "GET":
            body, headers = page_file(request.path)
            return web.Response(body=body, headers=headers)
        if self._closing:
            return web.Response(status=503, text=f"{CLOSING}\n")
        with self._slot(request) as address:
            return await self._upgrade(request, address)

    @contextmanager
    def _slot(self, request: web.Request) -> Iterator[str]:
        """Hold a slot while the client is connected, and yield its address; answer 503 if no slot is free."""
        forwarded_for = request.headers.getall("X-Forwarded-For", ())
        address = self._gate.proxies.client_behind(request.remote or "", forwarded_for)
        counted = self._gate.counted_as(address)
        if exceeded := self._slots.acquire(counted):
            self._gate.refusals.count(exceeded, REMEDY[exceeded], whose=counted)
            raise web.HTTPServiceUnavailable(text=refusal_text(exceeded), headers={"Retry-After": "10"})
        try:
            yield address
        finally:
            self._slots.release(counted)

    async def _upgrade(self, request: web.Request, address: str) -> web.StreamResponse:
        end: WebSocketEnd | None = None

        def open_end(transport: asyncio.Transport, websocket: Connection) -> WebSocketEnd:
            nonlocal end
            end = self._open(request.path_qs, transport, websocket)
            self._ends.add(end)
            return end

        try:
            accept = partial(self._admission, address=address)
            return await upgrade(request, accept, open_end, refusals, max_message=self._max_size)
        finally:
            if end is not None:
                self._ends.discard(end)

    def _open(self, target: str, transport: asyncio.Transport, websocket: Connection) -> WebSocketEnd:
        address = peer_address(transport.get_extra_info("peername"))
        log = logging.LoggerAdapter(logger, {"connection": address})

        def open_peer(end: WebSocketEnd) -> Member:
            beats, parts = bool(query(target, "beats")), bool(query(target, "parts"))
            return self.room.join(end, asked_name(target), address, beats=beats, parts=parts)

        return WebSocketEnd(transport, websocket, open_peer, name=address, log=log, settings=self._settings)
