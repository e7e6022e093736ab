"""Spring's simple broker and its STOMP endpoint, as one instance of the article has them. Not to be deployed.

    SEND /app/…       to the handler of that destination     SEND /topic/…     to every subscriber here, as it is
    CONNECT           CONNECTED, or nothing where no version is common
    RECEIPT           for DISCONNECT alone                   ERROR, 1002       for what is no frame, or out of turn

What Spring passes over in silence is passed over here: a missing header, a destination without a handler, a handler
that fails, receipts, acknowledgements, transactions, heart-beats. Nothing is kept, and nobody but this instance knows.

Left out: SockJS without a WebSocket (the server is at /ws/websocket); destinations of one user; and Spring's threads:
there, two frames of one client may overtake each other, here they are handled in their order.
"""

from __future__ import annotations

import itertools
import logging
import re
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from chatlab.chat.article.stomp_decoder import Decoder, encode
from chatlab.errors import HandshakeError, StompError
from chatlab.net import websockets_library
from chatlab.stomp.frames import Frame, StompHeaders
from chatlab.websocket import handshake
from chatlab.websocket.handshake import Request, known_names

logger = logging.getLogger("chatlab.chat.article")

PATH: Final = "/ws/websocket"
SUBPROTOCOLS: Final = ("v10.stomp", "v11.stomp", "v12.stomp")
VERSIONS: Final = ("1.2", "1.1", "1.0")
PREFIX: Final = "/topic"
OPEN_SECONDS, SHUTDOWN_SECONDS = 10.0, 2.0
MAX_MESSAGE: Final = 16 * 1024  # octets of a WebSocket message
MAX_BUFFERED: Final = 512 * 1024  # octets for a client that is slow to read: then its session is closed
NOT_RELIABLE: Final = 4500  # Spring's close code for that

Handler = Callable[[Frame], Awaitable[None]]


class Session:
    """One client: its connection, and what it is subscribed to (the destination, by id)."""

    def __init__(self, connection: ServerConnection, transports: websockets_library.Transports) -> None:
        self.id = str(uuid.uuid4())
        self.connection = connection
        self.decoder = Decoder()
        self.subscriptions: dict[str, str] = {}
        self.connected = False
        self._transports = transports

    async def send(self, data: bytes) -> None:
        """Send one frame; close the session of a client that is slow to read."""
        try:
            if self._transports.buffered(self.connection) > MAX_BUFFERED:
                await self.connection.close(NOT_RELIABLE)
            else:
                await self.connection.send(data.decode(), text=True)
        except ConnectionClosed:
            logger.debug("session %s is closed", self.id)

    async def fail(self, message: str) -> None:
        """Send ERROR, and close."""
        await self.send(encode("ERROR", (("message", message),), b""))
        await self.connection.close(1002)


class SimpleBroker:
    """The sessions of one instance, and the handlers of its controller by destination."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.sessions: dict[str, Session] = {}
        self.transports = websockets_library.Transports()
        self._handlers = handlers
        self._numbers = itertools.count()

    async def handle(self, connection: ServerConnection) -> None:
        """Do what one client asks for, until it has gone."""
        session = Session(connection, self.transports)
        try:
            async for message in connection:
                await self._receive(session, message.encode() if isinstance(message, str) else message)
        except ConnectionClosed:
            logger.info("session %s ended without a close", session.id)
        finally:
            self.sessions.pop(session.id, None)

    async def _receive(self, session: Session, data: bytes) -> None:
        try:
            for frame in session.decoder.feed(data):
                await self._obey(session, frame)
        except StompError as error:
            await session.fail(str(error))

    async def _obey(self, session: Session, frame: Frame) -> None:
        if not session.connected and frame.command not in ("CONNECT", "STOMP"):
            raise StompError(f"Unknown session: {session.id}")
        match frame.command:
            case "CONNECT" | "STOMP":
                await self._connect(session, frame)
            case "SEND":
                await self._send(frame)
            case "SUBSCRIBE":
                self._subscribe(session, frame)
            case "UNSUBSCRIBE":
                session.subscriptions.pop(frame.get("id") or "", None)
            case "DISCONNECT":
                await self._disconnect(session, frame)

    async def _connect(self, session: Session, frame: Frame) -> None:
        if session.connected:
            raise StompError("Session already exists")
        session.connected = True
        self.sessions[session.id] = session  # even where no version is common: such a client gets its messages
        offered = (frame.get("accept-version") or "").split(",")
        version = next((each for each in VERSIONS if each in map(str.strip, offered)), None)
        if version is not None:
            await session.send(encode("CONNECTED", (("version", version), ("heart-beat", "0,0"))))

    async def _disconnect(self, session: Session, frame: Frame) -> None:
        self.sessions.pop(session.id, None)
        receipt = frame.get("receipt")
        if receipt is None:
            raise StompError("Session closed.")
        await session.send(encode("RECEIPT", (("receipt-id", receipt),)))

    def _subscribe(self, session: Session, frame: Frame) -> None:
        id, destination = frame.get("id"), frame.get("destination")
        if id is not None and destination is not None and destination.startswith(PREFIX):
            session.subscriptions[id] = destination

    async def _send(self, frame: Frame) -> None:
        destination = frame.get("destination") or ""
        if handler := self._handlers.get(destination):
            try:
                await handler(frame)
            except Exception as error:  # Spring logs whatever a handler throws, and tells the client nothing
                logger.error("unhandled exception from the handler of %s: %s", destination, error)
        elif destination.startswith(PREFIX):
            await self.broadcast(destination, frame.headers, frame.body)

    async def broadcast(self, destination: str, headers: StompHeaders, body: bytes) -> None:
        """Send a MESSAGE to every subscriber; `headers`, a client's too, are passed on, `content-length` excepted."""
        for session in list(self.sessions.values()):
            for id, pattern in list(session.subscriptions.items()):
                if _matches(pattern, destination):
                    own = {"subscription": id, "message-id": f"{session.id}-{next(self._numbers)}"}
                    await session.send(encode("MESSAGE", tuple(_with(headers, own)), body))

    async def convert_and_send(self, destination: str, json: bytes) -> None:
        """Send JSON to every subscriber of a destination."""
        await self.broadcast(destination, (("destination", destination), ("content-type", "application/json")), json)


def _with(headers: StompHeaders, own: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the headers, equal names together, with the broker's `subscription`; a client's `message-id` wins."""
    given = Counter(name for name, _ in headers)
    for first in dict.fromkeys(name for name, _ in headers if name != "content-length"):
        if first == "subscription":
            yield first, own[first]
        else:
            yield from ((name, value) for name, value in headers if name == first)
    yield from ((name, value) for name, value in own.items() if name not in given)


def _matches(pattern: str, destination: str) -> bool:
    """Return whether a destination matches a subscription's: `?`, `*` and `**` as in Spring's AntPathMatcher."""
    if not set(pattern) & set("*?"):
        return pattern == destination
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(parts.get(each) or re.escape(each) for each in re.split(r"(\*\*|\*|\?)", pattern))
    return re.fullmatch(expression, destination) is not None


class Endpoint:
    """The broker's WebSocket, open on a port."""

    def __init__(self, broker: SimpleBroker, server: Server) -> None:
        self._broker, self._server = broker, server
        self.host, self.port = server.sockets[0].getsockname()[:2]

    async def aclose(self) -> None:
        """Close every connection and the port."""
        await websockets_library.close(self._server, self._broker.transports, SHUTDOWN_SECONDS, "")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def listen(broker: SimpleBroker, host: str, port: int, origins: Sequence[str]) -> Endpoint:
    """Open the endpoint. Raise OSError if the port is taken."""
    server = await serve(
        broker.handle,
        host,
        port,
        process_request=websockets_library.checked_by(partial(_accept, tuple(origins), known_names((host,), origins))),
        create_connection=broker.transports.connection_class(),
        select_subprotocol=_subprotocol,
        open_timeout=OPEN_SECONDS,
        ping_interval=None,
        max_size=MAX_MESSAGE,
        compression=None,
        server_header=None,
        logger=websockets_library.quiet(logger),
    )
    return Endpoint(broker, server)


def _accept(
    origins: tuple[str, ...], names: Collection[str], request: Request, address: str = ""
) -> tuple[handshake.Response, handshake.Agreement]:
    path = urlsplit(request.target).path
    if path == "/ws":
        raise HandshakeError('Can "Upgrade" only to "WebSocket" at /ws/websocket', status=400)
    if path != PATH:
        raise HandshakeError(f"nothing here; the endpoint is at {PATH}", status=404)
    return handshake.accept(request, origins=origins, names=names, compression=False)


def _subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first known subprotocol in the client's order; none is no reason to refuse."""
    return next((each for each in offered if each in SUBPROTOCOLS), None)
