"""The article's room: it sends to one session after another and waits for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from websockets import State
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from chatlab.net import websockets_library
from chatlab.net.memory_limit import HeldOctets
from chatlab.room.admission import Admission, peer_address
from chatlab.room.metrics import MemberMetrics, RoomMetrics
from chatlab.room.server import CLOSING, OPEN_SECONDS, SHUTDOWN_SECONDS, RoomServer
from chatlab.websocket.handshake import known_names

logger = logging.getLogger("chatlab.room")

CLOSE_SECONDS = 1.0  # the library leaves unread what came before the peer's Close, and would wait ten for that
WRITE_SECONDS = 20.0  # Tomcat's: how long a session may take to accept a text


class RoomAsInTheArticle:
    """The article's ChatSocketHandler, method by method: a registry, and a loop that sends to each session in turn.

    It does what the article's own program did when it was run (tests/original), and its faults are kept:

    - A session that stops reading blocks the loop once its buffers are full, and the sender with it, until the write
      times out. Then that session is closed, and so is the sender, whose handler this is, with 1011.
    - A session that one loop is sending to refuses the others: their senders are closed with 1011.
    - Several loops run concurrently, so members see messages in different orders.
    - Texts are sent unchanged: one with a line break can pass for another member's line wherever lines are shown.
    """

    def __init__(self, write_timeout: float = WRITE_SECONDS) -> None:
        self.sessions: dict[UUID, ServerConnection] = {}
        self.transports = websockets_library.Transports(HeldOctets(logger))
        self.messages = self.deliveries = 0
        self._write_timeout = write_timeout
        self._writing: set[UUID] = set()

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
        for session in self._open_sessions():  # a copy: sessions come and go while this loop waits
            await self._send(session, f"Server received: {text}")
            self.deliveries += 1

    def _open_sessions(self) -> list[ServerConnection]:
        """Return the registry's sessions; one that has sent its Close has left, as afterConnectionClosed is called."""
        return [each for each in self.sessions.values() if each.state is State.OPEN]

    async def _send(self, session: ServerConnection, text: str) -> None:
        """Send one text as Tomcat does: one sender at a time, and no longer than the write timeout."""
        if session.id in self._writing:
            raise RuntimeError("the remote endpoint was in state TEXT_PARTIAL_WRITING")
        self._writing.add(session.id)
        try:
            await asyncio.sleep(0)  # there, each handler has a thread of its own, and others run in the meantime
            if session.state is not State.OPEN:
                raise RuntimeError("message will not be sent because the session has been closed")
            async with asyncio.timeout(self._write_timeout):
                await session.send(text)
        except TimeoutError:
            session.transport.abort()
            raise
        finally:
            self._writing.discard(session.id)

    async def aclose(self) -> None:
        """Do nothing: no background work outlives the sessions."""

    def metrics(self) -> RoomMetrics:
        """Return what can be seen from outside: the sessions, and the bytes buffered for each."""
        members = tuple(
            MemberMetrics(
                f"session {number}", peer_address(each.remote_address), 0, self.transports.buffered(each), each.latency
            )
            for number, each in enumerate(self._open_sessions(), 1)
        )
        return RoomMetrics(members, (), self.messages, self.deliveries)


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = ("*",),
    host_names: Sequence[str] = (),
    send_buffer: int | None = None,
    write_timeout: float = WRITE_SECONDS,
    room: Callable[[float], RoomAsInTheArticle] = RoomAsInTheArticle,
) -> RoomServer:
    """Open the article's room: any origin by default, only the library's limits, one send after another.

    It runs on the `websockets` library, like the handler written in lesson 03. `room` creates the room from
    `write_timeout`: `RoomAsInTheArticle` or a subclass.
    """
    article, names = room(write_timeout), known_names((host, *host_names), origins)
    server = await serve(
        article.handle,
        host,
        port,
        process_request=websockets_library.checked_by(Admission(tuple(origins), names=names)),
        create_connection=article.transports.connection_class(send_buffer),
        open_timeout=OPEN_SECONDS,
        close_timeout=CLOSE_SECONDS,
        compression=None,
        server_header=None,
        logger=websockets_library.quiet(logger),
    )
    host, port = server.sockets[0].getsockname()[:2]
    close = partial(websockets_library.close, server, article.transports, SHUTDOWN_SECONDS, CLOSING)
    return RoomServer(article, host, port, None, close)
