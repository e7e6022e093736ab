"""The chat on one port: STOMP over WebSocket at /ws, the page, health and metrics. `start()` begins here.

    /ws           WebSocket; subprotocols v12.stomp, v11.stomp, v10.stomp, or none; /ws/websocket is the same
    /ws/…         SockJS, for browsers whose WebSocket is blocked
    /             the page
    /healthz      200 while the event loop runs
    /readyz       200 if clients should be sent here, and what a crash of the broker may lose; else 503 and the reason
    /metrics      for Prometheus; access to these two is restricted, see admin.py

aiohttp serves everything except open WebSockets (net/endpoint.py). See connection.py for client requests and sockjs.py
for SockJS.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from aiohttp import web

from chatlab.brokers.port import Broker
from chatlab.chat.delivery.transport import WEBSOCKET_FRAMING, ClientTransport
from chatlab.chat.endpoint.admin import Admin, AdminSettings
from chatlab.chat.endpoint.page import ChatPage
from chatlab.chat.endpoint.sockjs import SockJS
from chatlab.chat.metrics import CONTENT_TYPE
from chatlab.chat.service import ChatOptions, ChatService
from chatlab.chat.session.connection import StompConnection
from chatlab.chat.session.logs import ConnectionLog
from chatlab.classroom import WILDCARDS, host_to_open, in_url
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.connection_limits import ConnectionSlots, TrustedProxies, counted_as
from chatlab.net.endpoint import EndSettings, KeepAlive, WebSocketEnd
from chatlab.net.gate import REMEDY, Gate, refusal_text
from chatlab.net.http.hosts import require_known_host
from chatlab.net.http.server import HttpServer
from chatlab.net.http.upgrade import headers_of, upgrade
from chatlab.stomp.session import choose_subprotocol
from chatlab.websocket import connection as websocket
from chatlab.websocket import handshake

logger = logging.getLogger("chatlab.chat")
refusals = ThrottledLog(logger)

PATH = "/ws"
GOING_AWAY = "server shutting down"
DRAIN_SECONDS = 5.0
PING_SECONDS = 15.0  # of silence, then a ping, and as long again to answer it: a client may have no heart-beats
# A STOMP frame may be split over several WebSocket messages; no message is larger than a frame and its neighbours.
HEADER_ALLOWANCE = 16 * 1024
# Answered even when every place is taken.
ALWAYS = ("/healthz", "/readyz", "/metrics")


async def start(
    broker: Broker,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    host_names: Sequence[str] = (),
    admin: AdminSettings | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    trusted_proxies: Sequence[str] = (),
    **options: Unpack[ChatOptions],
) -> ChatServer:
    """Start an instance of the chat on `broker`. Raise OSError if the port is taken, TypeError for an unknown option.

    `origins`: the pages that may connect, other than the server's own, as https://example.org; "*" for any.
    `host_names`: the names of this server, other than its addresses, localhost and names without a dot.
    `admin`: where /readyz and /metrics are served, and to whom. `drain_seconds`: how long `aclose` waits for clients.
    `trusted_proxies`: addresses or networks of proxies whose X-Forwarded-For names the client.

    A broker that is not connected yet is started, and closed with the server.
    """
    _require_known(options)
    owns_broker = not broker.connected
    if owns_broker:
        await broker.start()
    server = ChatServer(
        ChatService(broker, **options),
        origins,
        drain_seconds,
        TrustedProxies(trusted_proxies),
        owns_broker=owns_broker,
        host_names=(host, *host_names),
        admin=admin,
    )
    try:
        await server.listen(host, port)
    except BaseException:
        await server.aclose()
        raise
    return server


def _require_known(options: Mapping[str, object]) -> None:
    """Raise TypeError for an unknown option, before anything is started that would have to be closed."""
    if unknown := sorted(options.keys() - ChatOptions.__annotations__):
        raise TypeError(f"unknown option {unknown[0]!r}; the options are {', '.join(ChatOptions.__annotations__)}")


class ChatServer:
    """A running instance. `url` is for STOMP clients, `page_url` for browsers."""

    def __init__(
        self,
        service: ChatService,
        origins: Sequence[str] = (),
        drain_seconds: float = DRAIN_SECONDS,
        proxies: TrustedProxies | None = None,
        *,
        owns_broker: bool,
        host_names: Sequence[str] = (),
        admin: AdminSettings | None = None,
    ) -> None:
        self.service = service
        self.host = ""
        self.port = 0
        self._drain_seconds = drain_seconds
        self._owns_broker = owns_broker
        self._numbers = itertools.count(1)
        self._origins = origins
        self._names = handshake.known_names(host_names, origins)
        self._accept = partial(handshake.accept, origins=origins, compression=False)  # else no bytes are shared
        self._end_settings = EndSettings(KeepAlive(PING_SECONDS, PING_SECONDS), held=service.held)
        self._sockjs = SockJS(
            self._open_peer,
            self._next_id,
            origins=origins,
            max_size=service.limits.max_frame + HEADER_ALLOWANCE,
            accepting=lambda: not service.draining,
            take_place=self._take_sockjs_place,
            give_back=self._give_back_sockjs_place,
            hold_place=self._place,
            end_settings=self._end_settings,
        )
        pages = {"/readyz": self._readyz, "/metrics": self._metrics}
        self.admin = Admin(pages, admin or AdminSettings(), logger, host_names)
        budgets = service.budgets
        self._gate = Gate(
            ConnectionSlots(budgets.places, budgets.connections_per_address),
            service.refusals,
            proxies,
            count_loopback=budgets.counts_loopback,
        )
        self._http = HttpServer(self._application(), logger, gate=self._gate, always=ALWAYS)
        self.first_request = self._http.first_request

    @property
    def url(self) -> str:
        """The URL for STOMP clients."""
        return f"ws://{self.host}:{self.port}{PATH}"

    @property
    def page_url(self) -> str:
        """The URL of the page, for a browser."""
        return f"http://{self.host}:{self.port}/"

    async def listen(self, host: str, port: int) -> None:
        """Start listening."""
        await self.service.ready()
        await self.admin.listen()
        await self._http.listen(host, port)
        self.host = in_url(host_to_open(self._http.host if self._http.host in WILDCARDS else host))
        self.port = self._http.port
        await self.service.log_crash_risk()  # only now has it started for certain

    async def aclose(self) -> None:
        """Stop listening, close every connection with 1001, wait at most `drain_seconds` for the clients, stop."""
        deadline = asyncio.get_running_loop().time() + self._drain_seconds
        await self._http.stop_listening()
        await self.service.drain(GOING_AWAY, self._drain_seconds)
        await self._http.aclose(deadline)
        await self.admin.aclose(deadline)
        await self.service.aclose()
        if self._owns_broker:
            await self.service.broker.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _application(self) -> web.Application:
        app = web.Application()
        app.middlewares.append(require_known_host(self._names, self._origins, refusals))
        app.router.add_get(PATH, self._websocket)
        app.router.add_get(PATH + "/websocket", self._websocket)
        self._sockjs.add_routes(app.router, PATH)
        ChatPage().add_routes(app.router)
        app.router.add_get("/healthz", self._healthz)
        self.admin.add_routes(app.router)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if reason := await self.service.why_not_served():
            return web.Response(text=f"{reason}\n", status=503)
        await self.service.update_crash_risk()
        return web.Response(text=f"{self.service.readiness()}\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        await self.service.why_not_served()
        await self.service.update_crash_risk()
        return web.Response(text=self.service.metrics_page(), headers={"Content-Type": CONTENT_TYPE})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if not handshake.asks_for_websocket(headers_of(request)):
            return await self._sockjs.greet(request)
        if self.service.draining:
            raise web.HTTPServiceUnavailable(text=f"{GOING_AWAY}\n")
        accept = partial(self._accept, choose=choose_subprotocol)
        open_end = partial(self._open_end, request)
        with self._place(request):
            return await upgrade(
                request, accept, open_end, refusals, max_message=self.service.limits.max_frame + HEADER_ALLOWANCE
            )

    def _open_end(
        self, request: web.Request, transport: asyncio.Transport, protocol: websocket.Connection
    ) -> WebSocketEnd:
        id = self._next_id()

        def open_peer(end: WebSocketEnd) -> StompConnection:
            return self._open_peer(ClientTransport(WEBSOCKET_FRAMING, end), request, id)

        log = ConnectionLog(logger, {"connection": id})
        return WebSocketEnd(transport, protocol, open_peer, name=id, log=log, settings=self._end_settings)

    def _next_id(self) -> str:
        return f"{self.service.id}-{next(self._numbers)}"

    def _open_peer(self, transport: ClientTransport, request: web.Request, id: str) -> StompConnection:
        """Start a client's session on a transport."""
        self.service.metrics.opened += 1
        address = self._address_of(request)
        counted = self._gate.counted_as(address)
        account = f"address {counted}" if counted else ""
        return StompConnection(self.service, transport, id, ConnectionLog(logger, {"connection": id}), address, account)

    # --- Places ---

    def _address_of(self, request: web.Request) -> str:
        """Return the client's address; "" if a trusted proxy does not name it."""
        return self._gate.proxies.client_behind(request.remote or "", request.headers.getall("X-Forwarded-For", ()))

    @contextmanager
    def _place(self, request: web.Request) -> Iterator[None]:
        """Hold a place while a WebSocket is open; 503 if there is none."""
        address = self._gate.counted_as(self._address_of(request))
        self._require_place(self.service.places.acquire(address), address)
        try:
            yield
        finally:
            self.service.places.release(address)

    def _take_sockjs_place(self, request: web.Request) -> tuple[str, str]:
        """Take a place for a SockJS session; 503 if there is none. Return the two addresses it is counted under."""
        client = self._address_of(request)
        address, sockjs_address = self._gate.counted_as(client), counted_as(client, loopback=True)
        self._require_place(self.service.places.acquire(address), address)
        if self.service.sockjs_places.acquire(sockjs_address):
            self.service.places.release(address)
            self._require_place("sockjs-sessions-per-address", sockjs_address)
        return address, sockjs_address

    def _give_back_sockjs_place(self, taken: tuple[str, str]) -> None:
        address, sockjs_address = taken
        self.service.places.release(address)
        self.service.sockjs_places.release(sockjs_address)

    def _require_place(self, exceeded: str, address: str) -> None:
        if exceeded:
            self.service.refusals.count(exceeded, REMEDY[exceeded], whose=address)
            raise web.HTTPServiceUnavailable(text=refusal_text(exceeded), headers={"Retry-After": "10"})
