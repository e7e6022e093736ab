"""The chat on one port: STOMP over WebSocket at /ws, the page, health and metrics. `start()` is the way in.

    /ws           WebSocket; subprotocols v12.stomp, v11.stomp, v10.stomp, or none; /ws/websocket is the same
    /ws/…         SockJS, for browsers whose WebSocket is blocked
    /             the page
    /healthz      200 as long as this process turns
    /readyz       200 if clients should be sent here, and what a crash of the broker may lose; else 503 and the reason
    /metrics      for Prometheus; these two not for everybody, see admin.py

On aiohttp, but for what follows the upgrade to a WebSocket (net/endpoint.py). See connection.py for what a client asks
for, and sockjs.py for SockJS.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from chatlab.brokers.port import Broker
from chatlab.chat.delivery.transport import WEBSOCKET_FRAMING, ClientTransport
from chatlab.chat.endpoint.admin import Admin, AdminSettings
from chatlab.chat.endpoint.page import ChatPage
from chatlab.chat.endpoint.sockjs import SockJS
from chatlab.chat.metrics import CONTENT_TYPE
from chatlab.chat.service import ChatService
from chatlab.chat.session.connection import StompConnection
from chatlab.chat.session.logs import ConnectionLog
from chatlab.classroom import WILDCARDS, host_to_open, in_url
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.endpoint import EndSettings, KeepAlive, WebSocketEnd
from chatlab.net.gate import REMEDY, Gate, refusal_of
from chatlab.net.http.hosts import judged_by_name
from chatlab.net.http.server import HttpServer
from chatlab.net.http.upgrade import headers_of, upgrade
from chatlab.net.places import Places, TrustedProxies, counted_as
from chatlab.stomp.session import choose_subprotocol
from chatlab.websocket import connection as websocket
from chatlab.websocket import handshake

logger = logging.getLogger("chatlab.chat")
refusals = ThrottledLog(logger)

PATH = "/ws"
GOING_AWAY = "server shutting down"
DRAIN_SECONDS = 5.0
PING_SECONDS = 15.0  # of silence, then a ping, and as many again to answer it: a client may have no heart-beats
# A STOMP frame may be cut over several WebSocket messages; one message is never larger than a frame and its neighbours.
ROOM_FOR_HEADERS = 16 * 1024
# Answered even where there is no place for one connection more.
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
    **options: Any,
) -> ChatServer:
    """Start an instance of the chat on `broker`; `options` are `ChatService`'s. OSError if the port is taken.

    `trusted_proxies`: addresses or networks of proxies whose X-Forwarded-For names the client.

    A broker that is not connected yet is started, and then closed with the server.
    """
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


class ChatServer:
    """A running instance. `url` is where STOMP clients connect, `page_url` where people do."""

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
        self._accept = partial(handshake.accept, origins=origins, compression=False)  # compressed, no bytes are shared
        self._end_settings = EndSettings(KeepAlive(PING_SECONDS, PING_SECONDS), held=service.held)
        self._sockjs = SockJS(
            self._open_peer,
            self._next_id,
            origins=origins,
            max_size=service.limits.max_frame + ROOM_FOR_HEADERS,
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
            Places(budgets.places, budgets.connections_per_address),
            service.refusals,
            proxies,
            count_loopback=budgets.counts_loopback,
        )
        self._http = HttpServer(self._application(), logger, gate=self._gate, always=ALWAYS)
        self.first_request = self._http.first_request

    @property
    def url(self) -> str:
        """Where STOMP clients connect."""
        return f"ws://{self.host}:{self.port}{PATH}"

    @property
    def page_url(self) -> str:
        """Where a browser opens the page."""
        return f"http://{self.host}:{self.port}/"

    async def listen(self, host: str, port: int) -> None:
        """Take connections from now on."""
        await self.service.ready()
        await self.admin.listen()
        await self._http.listen(host, port)
        self.host = in_url(host_to_open(self._http.host if self._http.host in WILDCARDS else host))
        self.port = self._http.port
        await self.service.say_crash_risk()  # now that it is sure to have started

    async def aclose(self) -> None:
        """Accept no more, tell everybody (close code 1001), wait `drain_seconds` at most for them to leave, stop."""
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
        app.middlewares.append(judged_by_name(self._names, self._origins, refusals))
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
        await self.service.ask_crash_risk()
        return web.Response(text=f"{self.service.readiness()}\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        await self.service.why_not_served()
        await self.service.ask_crash_risk()
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
                request, accept, open_end, refusals, max_message=self.service.limits.max_frame + ROOM_FOR_HEADERS
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
        """Begin a conversation, whatever the transport."""
        self.service.metrics.opened += 1
        address = self._address_of(request)
        counted = self._gate.counted_as(address)
        account = f"address {counted}" if counted else ""
        return StompConnection(self.service, transport, id, ConnectionLog(logger, {"connection": id}), address, account)

    # --- Places ---

    def _address_of(self, request: web.Request) -> str:
        """The client's address, "" if a trusted proxy does not say."""
        return self._gate.proxies.client_behind(request.remote or "", request.headers.getall("X-Forwarded-For", ()))

    @contextmanager
    def _place(self, request: web.Request) -> Iterator[None]:
        """Hold a place while a WebSocket is open; 503 if there is none."""
        address = self._gate.counted_as(self._address_of(request))
        self._require_place(self.service.places.take(address), address)
        try:
            yield
        finally:
            self.service.places.give_back(address)

    def _take_sockjs_place(self, request: web.Request) -> tuple[str, str]:
        """Take a place for a SockJS session; 503 if there is none. Return what it is counted under, twice."""
        client = self._address_of(request)
        address, sockjs_address = self._gate.counted_as(client), counted_as(client, loopback=True)
        self._require_place(self.service.places.take(address), address)
        if self.service.sockjs_places.take(sockjs_address):
            self.service.places.give_back(address)
            self._require_place("sockjs-sessions-per-address", sockjs_address)
        return address, sockjs_address

    def _give_back_sockjs_place(self, taken: tuple[str, str]) -> None:
        address, sockjs_address = taken
        self.service.places.give_back(address)
        self.service.sockjs_places.give_back(sockjs_address)

    def _require_place(self, over: str, address: str) -> None:
        if over:
            self.service.refusals.note(over, REMEDY[over], whose=address)
            raise web.HTTPServiceUnavailable(text=refusal_of(over), headers={"Retry-After": "10"})
