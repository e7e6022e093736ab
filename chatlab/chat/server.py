"""The chat on one port: STOMP over WebSocket at /ws, the page, health and metrics. `start()` is the way in.

    /ws           WebSocket; subprotocols v12.stomp, v11.stomp, v10.stomp, or none; /ws/websocket is the same
    /ws/…         SockJS, for browsers whose WebSocket is blocked
    /             the page
    /healthz      200 as long as this process turns
    /readyz       200 if clients should be sent here, and what a crash of the broker may lose; else 503 and the reason
    /metrics      for Prometheus

On aiohttp, but for what follows the upgrade to a WebSocket (websocket.py). What a client asks for is connection.py's
affair, SockJS sockjs.py's.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from chatlab.brokers.port import Broker
from chatlab.chat.connection import Connection
from chatlab.chat.logs import ConnectionLog
from chatlab.chat.loiterers import Loiterers
from chatlab.chat.metrics import CONTENT_TYPE
from chatlab.chat.page import Page
from chatlab.chat.service import ChatService
from chatlab.chat.sockjs import SockJS
from chatlab.chat.transport import WEBSOCKET_FRAMING, Transport
from chatlab.chat.websocket import WebSocketEnd, upgrade
from chatlab.stomp.session import choose_subprotocol
from chatlab.websocket.handshake import get_tokens, origin_allowed

logger = logging.getLogger("chatlab.chat")

PATH = "/ws"
GOING_AWAY = "server shutting down"
DRAIN_SECONDS = 5.0
KEEP_ALIVE = 75.0  # seconds a connection may idle between two requests
# A STOMP frame may be cut over several WebSocket messages; one message is never larger than a frame and its neighbours.
ROOM_FOR_HEADERS = 16 * 1024


async def start(
    broker: Broker,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    drain_seconds: float = DRAIN_SECONDS,
    **options: Any,
) -> ChatServer:
    """Start an instance of the chat on `broker`; `options` are `ChatService`'s. OSError if the port is taken.

    A broker that is not connected yet is started, and then closed with the server.
    """
    owns_broker = not broker.connected
    if owns_broker:
        await broker.start()
    server = ChatServer(ChatService(broker, **options), origins, drain_seconds, owns_broker=owns_broker)
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
        *,
        owns_broker: bool,
    ) -> None:
        self.service = service
        self.host = ""
        self.port = 0
        self._origins = origins
        self._drain_seconds = drain_seconds
        self._owns_broker = owns_broker
        self._numbers = itertools.count(1)
        self._sites: list[web.SockSite] = []
        self._sockjs = SockJS(
            self._open,
            origins=origins,
            max_size=service.limits.max_frame + ROOM_FOR_HEADERS,
            accepting=lambda: not service.draining,
        )
        self.loiterers = Loiterers(self._incoming)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=drain_seconds,
            keepalive_timeout=KEEP_ALIVE,
        )

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
        await self._runner.setup()
        self._sites = [web.SockSite(self._runner, sock) for sock in _bound(host, port)]
        for site in self._sites:
            await site.start()
        self.loiterers.start()
        self.host = f"[{host}]" if ":" in host else host
        self.port = self._runner.addresses[0][1]
        await self.service.say_crash_risk()  # now that it is sure to have started

    async def aclose(self) -> None:
        """Accept no more, tell everybody (close code 1001), wait for them to leave, stop."""
        for site in self._sites:
            await site.stop()
        self._sites.clear()
        self.loiterers.stop()
        await self.service.drain(GOING_AWAY, self._drain_seconds)
        await self._runner.cleanup()
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
        app = web.Application(middlewares=[self.loiterers.middleware])
        app.router.add_get(PATH, self._websocket)
        app.router.add_get(PATH + "/websocket", self._websocket)
        self._sockjs.add_routes(app.router, PATH)
        Page().add_routes(app.router)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    def _incoming(self) -> list[Any]:
        return self._runner.server.connections if self._runner.server is not None else []

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if reason := self.service.why_not_ready():
            return web.Response(text=f"{reason}\n", status=503)
        await self.service.ask_crash_risk()
        return web.Response(text=f"{self.service.readiness()}\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        await self.service.ask_crash_risk()
        return web.Response(text=self.service.metrics_page(), headers={"Content-Type": CONTENT_TYPE})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await self._sockjs.greet(request)
        if not origin_allowed(request.headers.get("Origin"), request.host, self._origins):
            logger.info("origin refused", extra={"origin": request.headers.get("Origin")})
            raise web.HTTPForbidden(text="this origin may not connect\n")
        if self.service.draining:
            raise web.HTTPServiceUnavailable(text=f"{GOING_AWAY}\n")
        limit = self.service.limits.max_frame + ROOM_FOR_HEADERS

        def converse(transport: asyncio.Transport) -> WebSocketEnd:
            id = self._next_id()
            end = WebSocketEnd(transport, id, limit)
            connection = self._open(Transport(WEBSOCKET_FRAMING, end), request, id)
            end.begin(connection.receive, connection.end)
            return end

        chosen = choose_subprotocol(get_tokens(tuple(request.headers.items()), "Sec-WebSocket-Protocol"))
        return await upgrade(request, converse, origins=self._origins, subprotocols=[chosen] if chosen else [])

    def _next_id(self) -> str:
        return f"{self.service.id}-{next(self._numbers)}"

    def _open(self, transport: Transport, request: web.Request, id: str | None = None) -> Connection:
        """Begin a conversation, whatever the transport."""
        id = id or self._next_id()
        self.service.metrics.opened += 1
        return Connection(self.service, transport, id, ConnectionLog(logger, {"connection": id}), request.remote or "")


def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`; OSError if one is taken, or none is this machine's.

    The loop could look the name up, but uvloop keeps four threads from then on, and in a process with more than one
    thread each write takes a fiftieth longer.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    faults: list[OSError] = []
    for family, *_, address in dict.fromkeys(addresses):
        try:
            bound.append(socket.create_server(address, family=family))
        except OSError as error:
            faults.append(error)
    taken = [error for error in faults if error.errno == errno.EADDRINUSE]
    if taken or not bound:
        for sock in bound:
            sock.close()
        raise (taken or faults)[0]
    return bound
