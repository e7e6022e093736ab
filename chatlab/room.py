"""The chat room at /room, twice: as the article has it, and one that holds.

`start_as_in_the_article()` sends to one session after another and waits for each, so one member who stops reading stops
the room. `start()` hands everything to `fanout.py`, which waits for nobody. What a member sees is plain text, and how a
line begins says what it is:

    Server received: hello             a member's text, to everybody, its sender too: the article's form
    Server received from Ana: hello    the same from a member with a name: ws://host:port/room?name=Ana
    * Ana joined (3 here)              a notice: somebody with a name came or left; who has no name comes unannounced
    ! not sent: ...                    an error, to the one who caused it
    (an empty message)                 a heart-beat, to a member that asked for them: ws://host:port/room?beats=yes

A name has no colon and no control characters, and is taken once: nobody's text can pass for a notice, an error or
somebody else's. Everybody who is in sees the same lines in the same order. A GET for / answers with a small page to
come in by (`classroom.py`); with a room code, nobody comes in without it.

Left out: history, private messages, several rooms. A room that several instances share is `shared_room.py`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from uuid import UUID

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.streams import StreamReader

from chatlab.classroom import PAGE, host_to_open, in_url, page_response, same_code
from chatlab.errors import HandshakeError
from chatlab.fanout import Fanout, Group, SlowReaderPolicy
from chatlab.websocket.handshake import origin_allowed

logger = logging.getLogger("chatlab.room")

PATH = "/room"
MAX_NAME = 32  # characters
TURN = 64  # messages taken from one member before the others have their turn
DEPARTURES = 100  # how many of the last departures are remembered, with their reasons
SHUTDOWN_SECONDS = 2.0  # for members to answer the close with 1001, before their connections are dropped
OPEN_SECONDS = 5.0  # for a client to finish its handshake
BEAT_SECONDS = 10.0  # between two heart-beats to a member that asked for them


def text_frame(text: str) -> bytes:
    """Return `text` as one unmasked, final text frame."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


HEART_BEAT = text_frame("")


@dataclass(frozen=True)
class RateLimit:
    """How fast one member may send: `per_second` on average, `burst` at once.

    A message beyond that is refused with an error, and counts all the same: who goes on stays refused. `patience`
    refusals without a pause, and the member is closed with 1008.
    """

    per_second: float
    burst: int = 10
    patience: int = 50


class Allowance:
    """What one member may still send: a bucket of tokens that `limit` fills, and that goes below zero for a flooder."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.tokens = float(limit.burst)
        self.at = time.monotonic()

    def take(self) -> bool:
        """Take a token for one message; False if there was none."""
        now = time.monotonic()
        self.tokens = min(self.limit.burst, self.tokens + (now - self.at) * self.limit.per_second) - 1
        self.at = now
        return self.tokens >= 0

    @property
    def exhausted(self) -> bool:
        """Whether so much was refused that patience has run out."""
        return self.tokens < -self.limit.patience


# --- What can be measured from outside ---


@dataclass(frozen=True)
class MemberMetrics:
    """One member at one moment."""

    name: str
    address: str
    sent: int  # texts the room took from it
    buffered: int  # bytes that wait for it
    latency: float  # seconds, measured by the last keep-alive ping; 0 before the first


@dataclass(frozen=True)
class Departure:
    """Who left, and why."""

    name: str
    code: int
    reason: str


@dataclass(frozen=True)
class Metrics:
    """A room at one moment; counts are since it opened."""

    members: tuple[MemberMetrics, ...]
    departures: tuple[Departure, ...]
    messages: int
    deliveries: int
    messages_per_second: float = 0.0
    writes: int = 0
    slow: int = 0
    aborted: int = 0

    @property
    def buffered(self) -> int:
        """Bytes that wait for members, all together."""
        return sum(member.buffered for member in self.members)


# --- The room that holds ---


class Member:
    """One connection in the room, and the sink that `fanout` writes to: the one place that knows both."""

    descriptor: int | None = None

    def __init__(self, room: Room, connection: ServerConnection, number: int, name: str | None) -> None:
        self.room = room
        self.connection = connection
        self.name = name
        self.label = name or f"member {number}"
        self.prefix = f"Server received from {name}: " if name else "Server received: "
        self.allowance = Allowance(room.rate) if room.rate else None
        self.sent = 0
        self._protocol = connection.protocol
        self._transport = connection.transport
        self._held: list[bytes] = []  # what came while a fragmented message was under way
        self._plain = not connection.protocol.extensions  # nothing held, nothing to compress

    def __str__(self) -> str:
        return f"{self.label} at {address_of(self.connection)}"

    def write(self, data: bytes) -> None:
        """Send frames past the library, straight to the transport, when nothing can be in their way."""
        if self._protocol.close_sent is not None or self._protocol.eof_sent:
            return  # RFC 6455, 5.5.1: "MUST NOT send any more data frames after sending a Close frame"
        if self._plain and self.connection.send_in_progress is None:
            self._transport.write(data)
        else:
            self._write_the_ordinary_way(data)

    def _write_the_ordinary_way(self, data: bytes) -> None:
        under_way = self.connection.send_in_progress
        if under_way is None and not self._held:
            for payload in payloads(data):
                self._protocol.send_text(payload)
            self.connection.send_data()
            return
        # RFC 6455, 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another message"
        if not self._held and under_way is not None:
            under_way.add_done_callback(self._release)
        self._held.append(data)
        self._plain = False

    def _release(self, _: asyncio.Future[None]) -> None:
        held, self._held = self._held, []
        self._plain = not self._protocol.extensions
        self.write(b"".join(held))

    def buffered(self) -> int:
        """Bytes that wait here: in the transport, or for the end of a fragmented message."""
        waiting = self._transport.get_write_buffer_size()
        return waiting if self._plain else waiting + sum(map(len, self._held))

    def close(self, code: int, reason: str) -> None:
        """Leave the room and start the closing handshake; nobody waits for its end."""
        self.room.leave(self, code, reason)
        self.room.in_background(self.connection, code, reason)

    def metrics(self) -> MemberMetrics:
        """How it is doing now."""
        connection = self.connection
        return MemberMetrics(self.label, address_of(connection), self.sent, self.buffered(), connection.latency)

    def abort(self) -> None:
        """Leave the room and drop the TCP connection."""
        self.room.leave(self, CloseCode.ABNORMAL_CLOSURE, "aborted")
        self.connection.transport.abort()


def payloads(frames: bytes) -> Iterator[bytes]:
    """The payloads of whole, unmasked frames in a row."""
    reader = StreamReader()
    reader.feed_data(frames)
    while reader.buffer:
        try:
            next(Frame.parse(reader.read_exact, mask=False))
        except StopIteration as done:
            yield bytes(done.value.data)


class Room:
    """The members, and what happens when one comes, speaks or goes."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None) -> None:
        self.fanout = Fanout(policy)
        self.rate = rate
        self.members: Group[Member] = self.fanout.group()
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES)
        self._names: set[str] = set()  # taken, case-folded
        self._numbers = count(1)
        self._closing: set[asyncio.Task[None]] = set()
        self._wants_beats: set[Member] = set()
        self._next_beat: asyncio.TimerHandle | None = None

    async def handle(self, connection: ServerConnection) -> None:
        """One member's life, from its handshake to its end."""
        member = self.join(connection)
        try:
            taken = 0
            async for message in connection:
                if member in self.members:  # else it was closed, and what it still says is not heard
                    self.receive(member, message)
                taken += 1
                if taken % TURN == 0:
                    await asyncio.sleep(0)  # the loop above does not pause while there are messages
        except ConnectionClosedError as closed:
            logger.debug("%s: %s", member, closed)  # why it left stands in its Departure
        finally:
            self.leave(member, *how_it_ended(connection))

    def join(self, connection: ServerConnection) -> Member:
        """Let a connection in, under the name it asks for or one like it, and tell everybody."""
        assert connection.request is not None  # it has been through its handshake
        name = self._free_name(asked_name(connection.request))
        member = Member(self, connection, next(self._numbers), name)
        self.members.add(member)
        if member.name:
            self._names.add(member.name.casefold())
            self.notify(f"{member.name} joined")
        if query(connection.request, "beats"):
            self._wants_beats.add(member)
            self._beat_later()
        logger.info("%s joined", member)
        return member

    def leave(self, member: Member, code: int, reason: str) -> None:
        """Take a member out, once, and tell everybody."""
        if member not in self.members:
            return
        self.members.discard(member)
        self._wants_beats.discard(member)
        self.departures.append(Departure(member.label, code, reason))
        if member.name:
            self._names.discard(member.name.casefold())
            self.notify(f"{member.name} left")
        logger.info("%s left: %d %s", member, code, reason)

    def receive(self, member: Member, message: str | bytes) -> None:
        """Pass a member's text on to everybody, unless it may not be sent."""
        if isinstance(message, bytes):
            # RFC 6455, 7.4.1: 1003 when "it has received a type of data it cannot accept"
            member.close(CloseCode.UNSUPPORTED_DATA, "this room takes text, not binary messages")
        elif member.allowance and not member.allowance.take():
            self._refuse(member, member.allowance)
        else:
            member.sent += 1
            self.pass_on(member, member.prefix + message)

    def pass_on(self, member: Member, line: str) -> None:
        """Send on what `member` said. A room that several instances share hands it to a broker here instead."""
        self.deliver(line)

    def deliver(self, line: str) -> None:
        """Send `line` to every member of this instance."""
        self.members.send(text_frame(line))

    def notify(self, what: str) -> None:
        """Tell everybody `what` happened, and how many are here now."""
        self.deliver(f"* {what} ({len(self.members)} here)")

    def tell(self, member: Member, error: str) -> None:
        """Tell one member why what it sent was not passed on."""
        self.fanout.send(text_frame(f"! not sent: {error}"), (member,))

    def _refuse(self, member: Member, allowance: Allowance) -> None:
        limit = f"more than {allowance.limit.per_second:g} messages a second"
        if allowance.exhausted:
            member.close(CloseCode.POLICY_VIOLATION, f"flooding: {limit}")
        else:
            self.tell(member, limit)

    def _free_name(self, name: str | None) -> str | None:
        """`name` if it is free, else name-2, name-3, ..."""
        if name is None or name.casefold() not in self._names:
            return name
        return next(each for n in count(2) if (each := f"{name}-{n}").casefold() not in self._names)

    def in_background(self, connection: ServerConnection, code: int, reason: str) -> None:
        """Run the closing handshake of one connection in a task that this room owns."""
        task = asyncio.create_task(connection.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _beat_later(self) -> None:
        if self._next_beat is None and self._wants_beats:
            self._next_beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        """Send heart-beats: pings are answered by the browser, and its pages never learn of them."""
        for member in self._wants_beats:
            member.write(HEART_BEAT)
        self._next_beat = None
        self._beat_later()

    def close(self) -> None:
        """Stop the watch over slow readers, and the heart-beats."""
        if self._next_beat is not None:
            self._next_beat.cancel()
        self.fanout.close()

    def metrics(self) -> Metrics:
        """What the room is doing now."""
        counters = self.fanout.counters
        return Metrics(
            members=tuple(each.metrics() for each in self.members),
            departures=tuple(self.departures),
            messages=counters.messages,
            deliveries=counters.deliveries,
            messages_per_second=self.fanout.meter.rate(),
            writes=counters.writes,
            slow=counters.slow,
            aborted=counters.aborted,
        )


def how_it_ended(connection: ServerConnection) -> tuple[int, str]:
    """The close code and reason that were received, else those that were sent, else 1006: it just broke off."""
    close = connection.protocol.close_rcvd or connection.protocol.close_sent
    if close is None:
        # RFC 6455, 7.1.5: "If [...] no Close control frame was received [...] the close code is considered to be 1006."
        return CloseCode.ABNORMAL_CLOSURE, "connection lost"
    return close.code, close.reason


def address_of(connection: ServerConnection) -> str:
    """The peer's address, for logs and metrics: 127.0.0.1:50123."""
    host, port, *_ = connection.remote_address or ("?", 0)
    return f"{host}:{port}"


# --- The room as in the article ---


class RoomAsInTheArticle:
    """The article's ChatSocketHandler, method by method: a registry, and a loop that sends to one after another.

    What is wrong with it is left in. One session that does not read blocks the loop once its buffers are full, and with
    it the sender. One session that is going away makes `send` raise: those after it get nothing, and the sender, whose
    handler this is, is closed with 1011. Any number of loops run at once, so members see messages in different orders.
    """

    def __init__(self) -> None:
        self.sessions: dict[UUID, ServerConnection] = {}
        self.messages = self.deliveries = 0

    async def handle(self, connection: ServerConnection) -> None:
        """afterConnectionEstablished, then handleTextMessage for each text, then afterConnectionClosed."""
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
        """Send `text` to every session of the registry, one after another."""
        self.messages += 1
        for session in list(self.sessions.values()):  # a copy: sessions come and go while this loop waits
            await session.send(f"Server received: {text}")
            self.deliveries += 1

    def close(self) -> None:
        """Nothing runs on here once the sessions are closed."""

    def metrics(self) -> Metrics:
        """What there is to see from outside: the sessions, and what waits for each."""
        members = tuple(
            MemberMetrics(
                f"session {number}", address_of(each), 0, each.transport.get_write_buffer_size(), each.latency
            )
            for number, each in enumerate(self.sessions.values(), 1)
        )
        return Metrics(members, (), self.messages, self.deliveries)


# --- The door: what is asked of an HTTP request before it becomes a member ---


@dataclass(frozen=True)
class Door:
    """Which requests may become members: by path, origin, room code and name."""

    origins: Sequence[str] = ()
    code: str | None = None
    page: bool = True

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer `request`, or return None to let the handshake go on (the library's `process_request`)."""
        path = urlsplit(request.path).path
        if self.page and path in PAGE and request.method == "GET":
            return page_response(path)
        try:
            self.check(request)
        except HandshakeError as refused:
            logger.info("refused %s: %s", address_of(connection), refused)
            return connection.respond(HTTPStatus(refused.status), f"{refused}\n")
        return None

    def check(self, request: Request) -> None:
        """Raise `HandshakeError` unless `request` may go on to the handshake; that itself is checked by the library."""
        if urlsplit(request.path).path != PATH:
            raise HandshakeError(f"nothing here; the room is at {PATH}", status=404)
        origin, host = only(request.headers, "Origin"), only(request.headers, "Host")
        if not origin_allowed(origin, host, self.origins):
            raise HandshakeError(f"origin not allowed: {origin!r}", status=403)
        if self.code is not None and not same_code(query(request, "code") or "", self.code):
            raise HandshakeError("wrong room code", status=403)
        asked_name(request)


def only(headers: Headers, name: str) -> str | None:
    """The one value of a header; a second one would leave open which of them was checked."""
    values = headers.get_all(name)
    if len(values) > 1:
        raise HandshakeError(f"more than one {name} header")
    return values[0] if values else None


def query(request: Request, name: str) -> str | None:
    """The last value of a query parameter, or None."""
    try:
        return parse_qs(urlsplit(request.path).query, max_num_fields=10).get(name, [None])[-1]
    except ValueError:
        raise HandshakeError("more than 10 query parameters") from None


def asked_name(request: Request) -> str | None:
    """The name a request asks for; raises `HandshakeError` for one that could be mistaken for something else."""
    name = " ".join(unicodedata.normalize("NFC", query(request, "name") or "").split())
    if len(name) > MAX_NAME:
        raise HandshakeError(f"name too long: {len(name)} characters, at most {MAX_NAME}")
    if ":" in name or not name.isprintable():
        raise HandshakeError(f"name with a colon or an unprintable character: {name!r}")
    return name or None


# --- The server ---


class Handler(Protocol):
    """What a server needs of a room."""

    async def handle(self, connection: ServerConnection) -> None:
        """One member's life."""

    def close(self) -> None:
        """Stop what runs besides the members."""

    def metrics(self) -> Metrics:
        """What the room is doing now."""


class RoomServer:
    """A room that listens; close it with `aclose()` or `async with`."""

    def __init__(self, server: Server, room: Handler, connections: set[ServerConnection], code: str | None) -> None:
        self.room = room
        self.code = code
        self._server = server
        self._connections = connections
        host, self.port = server.sockets[0].getsockname()[:2]
        self.host = host_to_open(host)
        self.url = f"ws://{in_url(self.host)}:{self.port}{PATH}"

    def join_url(self, name: str | None = None) -> str:
        """The URL for a member, with the room code if there is one: ws://127.0.0.1:8080/room?name=Ana."""
        fields = {"name": name, "code": self.code}
        text = urlencode({key: value for key, value in fields.items() if value}, quote_via=quote)
        return f"{self.url}?{text}" if text else self.url

    def page_url(self, host: str | None = None) -> str:
        """The page's URL; the code stands behind the #, which browsers keep to themselves."""
        return f"http://{in_url(host or self.host)}:{self.port}/" + (f"#{self.code}" if self.code else "")

    def metrics(self) -> Metrics:
        """What the room is doing now."""
        return self.room.metrics()

    async def aclose(self) -> None:
        """Stop listening, close every member with 1001, and drop those who have not answered in time."""
        # RFC 6455, 7.4.1: 1001 "indicates that an endpoint is "going away", such as a server going down"
        self._server.close(code=CloseCode.GOING_AWAY, reason="the room is closing")
        closed = asyncio.ensure_future(self._server.wait_closed())
        await asyncio.wait([closed], timeout=SHUTDOWN_SECONDS)
        for connection in list(self._connections):
            connection.transport.abort()
        await closed
        self.room.close()

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
    code: str | None = None,
    policy: SlowReaderPolicy | None = None,
    rate: RateLimit | None = None,
    max_size: int = 1 << 16,
    compression: str | None = None,
    ping_interval: float = 20,
    ping_timeout: float = 20,
    send_buffer: int | None = None,
    room: Callable[[SlowReaderPolicy, RateLimit | None], Room] = Room,
) -> RoomServer:
    """Open the room that holds; `port=0` takes a free one.

    `origins`: whose pages may come in besides the room's own, as https://example.org; "*" lets in all of them.
    `code`: the room code to ask for. `policy`: for slow readers. `rate`: for fast senders; without it, one member can
    send as much as the machine takes, which is what a measurement wants and a class does not. `max_size`: of one
    message, in bytes; beyond it a member is closed with 1009. `ping_interval`, `ping_timeout`: keep-alive, in seconds.

    `compression="deflate"` allows permessage-deflate. It is off because with it no two members share a byte: each
    message is compressed again for each member, with a memory of its own for each (some 300 KiB at zlib's defaults).

    `send_buffer`: the kernel's send buffer for each member, in bytes (SO_SNDBUF); None leaves it to the kernel, which
    gives up to some megabytes. With a small one, a member who does not read is noticed sooner.

    `room` makes the room from `policy` and `rate`: `Room`, or a kind of it.
    """
    policy = policy or SlowReaderPolicy()
    return await _listen(
        room(policy, rate),
        Door(tuple(origins), code),
        send_buffer,
        close_timeout=policy.drain_seconds + 1,  # no sooner: a slow reader has that long to come to its close
        host=host,
        port=port,
        max_size=max_size,
        compression=compression,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    )


async def start_as_in_the_article(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = ("*",),
    send_buffer: int | None = None,
) -> RoomServer:
    """Open the article's room: any origin by default, no limits but the library's, one send after another."""
    return await _listen(
        RoomAsInTheArticle(), Door(tuple(origins), page=False), send_buffer, host=host, port=port, compression=None
    )


async def _listen(room: Handler, door: Door, send_buffer: int | None, **options: Any) -> RoomServer:
    connections: set[ServerConnection] = set()
    server = await serve(
        room.handle,
        process_request=door,
        create_connection=_tracked(connections, send_buffer),
        open_timeout=OPEN_SECONDS,
        **options,
    )
    return RoomServer(server, room, connections, door.code)


def _tracked(connections: set[ServerConnection], send_buffer: int | None) -> type[ServerConnection]:
    """A connection that is in `connections` from the first moment: the library counts it from its handshake only."""

    class TrackedConnection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.add(self)
            if send_buffer is not None:
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.discard(self)
            super().connection_lost(exc)

    return TrackedConnection
