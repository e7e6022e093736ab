"""The article's room: it sends to one session after another and waits for each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from chatlab.net import websockets_library
from chatlab.net.memory_limit import HeldOctets
from chatlab.room.admission import Admission, peer_address
from chatlab.room.metrics import MemberMetrics, RoomMetrics
from chatlab.room.server import CLOSING, OPEN_SECONDS, SHUTDOWN_SECONDS, RoomServer
from chatlab.websocket.handshake import known_names

logger = logging.getLogger("chatlab.room")


class RoomAsInTheArticle:
    """The article's ChatSocketHandler, method by method: a registry, and a loop that sends to each session in turn.

    Its faults are kept. A session that stops reading blocks the loop once its buffers are full, and the sender with
    it. A session that is closing makes `send` raise: the sessions after it receive nothing, and the sender, whose
    handler this is, is closed with 1011. Several loops run concurrently, so members see messages in different orders.
    Texts are sent unchanged: one with a line break can pass for another member's line wherever lines are shown.
    """

    def __init__(self) -> None:
        self.sessions: dict[UUID, ServerConnection] = {}
        self.transports = websockets_library.Transports(HeldOctets(logger))
        self.messages = self.deliveries = 0

    async def handle(self, connection: ServerConnection) -> None:
        """Do what afterConnectionEstablished, handleTextMessage and afterConnectionClosed do."""
        self.sessions[connection.id] = connection
        logger.info("new connection: %s", connection.id)
        try:
            while (text := await self._next_text(connection)) is not None:
                await self.handle_text_message(text)
        finally:
            self.sessions.pop(connection.id, None)
            logger.info("connection closed: %s", connection.id)

    async def _next_text(self, connection: ServerConnection) -> str | None:
        try:
            return await connection.recv(decode=True)
        except ConnectionClosedOK:
            return None
        except ConnectionClosedError as error:  # handleTransportError
            logger.error("transport error: %s", error)
            return None

    async def handle_text_message(self, text: str) -> None:
        """Send `text` to every session in the registry, one after another."""
        self.messages += 1
        for session in list(self.sessions.values()):  # a copy: sessions come and go while this loop waits
            await session.send(f"Server received: {text}")
            self.deliveries += 1

    async def aclose(self) -> None:
        """Do nothing: no background work outlives the sessions."""

    def metrics(self) -> RoomMetrics:
        """Return what can be seen from outside: the sessions, and the bytes buffered for each."""
        members = tuple(
            MemberMetrics(
                f"session {number}", peer_address(each.remote_address), 0, self.transports.buffered(each), each.latency
            )
            for number, each in enumerate(self.sessions.values(), 1)
        )
        return RoomMetrics(members, (), self.messages, self.deliveries)


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = ("*",),
    host_names: Sequence[str] = (),
    send_buffer: int | None = None,
) -> RoomServer:
    """Open the article's room: any origin by default, only the library's limits, one send after another.

    It runs on the `websockets` library, like the handler written in lesson 03.
    """
    article, names = RoomAsInTheArticle(), known_names((host, *host_names), origins)
    server = await serve(
        article.handle,
        host,
        port,
        process_request=websockets_library.checked_by(Admission(tuple(origins), names=names)),
        create_connection=article.transports.connection_class(send_buffer),
        open_timeout=OPEN_SECONDS,
        compression=None,
        server_header=None,
        logger=websockets_library.quiet(logger),
    )
    host, port = server.sockets[0].getsockname()[:2]
    close = partial(websockets_library.close, server, article.transports, SHUTDOWN_SECONDS, CLOSING)
    return RoomServer(article, host, port, None, close)
