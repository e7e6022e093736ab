"""The chat room at /room, twice: as the article has it, and one that holds.

`start_as_in_the_article()` sends to one session after another and waits for each, so one member who stops reading stops
the room. `start()` hands everything to `fanout.py`, which waits for nobody. What a member sees is plain text, and how a
line begins says what it is:

    Server received: hello             a member's text, to everybody, its sender too: the article's form
    Server received from Ana: hello    the same from a member with a name: ws://host:port/room?name=Ana
    * Ana joined (3 here)              a notice: somebody with a name came or left; who has no name comes unannounced
    ! not sent: ...                    an error, to the one who caused it
    ! not confirmed: ...               the same, if the text may still arrive (a shared room)
    (an empty message)                 a heart-beat, to a member that asked for them: ws://host:port/room?beats=yes

Whatever a member sends is one line, and a name has nothing in it that separates the parts of a line and is taken once,
however it is written: nobody's text can pass for a notice, an error or somebody else's (`room_lines.py`). A member that
asks for it (ws://host:port/room?parts=yes), as the page does, receives each line as JSON, with its parts apart.

Everybody who is in sees the same lines in the same order. A GET for / answers with a small page to come in by
(`classroom.py`); with a room code, nobody comes in without it.

Left out: history, private messages, several rooms. A room that several instances share is `shared_room.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from uuid import UUID

import msgspec
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from chatlab.classroom import PAGE, CodeGuard, host_to_open, in_url, page_file
from chatlab.errors import HandshakeError
from chatlab.fanout import Fanout, Group, SlowReaderPolicy
from chatlab.naming import skeletons
from chatlab.net import websockets_library
from chatlab.net.aiohttp_upgrade import upgrade
from chatlab.net.endpoint import EndSettings, KeepAlive, WebSocketEnd
from chatlab.net.gate import REMEDY, Gate, refusal_of
from chatlab.net.held import Held
from chatlab.net.hosts import judged_by_name
from chatlab.net.http_server import HttpServer
from chatlab.net.places import PlaceLimits, Refusals, TrustedProxies
from chatlab.room_lines import Parts, one_line, parts_of, required_name
from chatlab.seldom import Seldom
from chatlab.websocket import handshake
from chatlab.websocket.connection import Connection
from chatlab.websocket.frames import Close, CloseCode, Frame, server_message
from chatlab.websocket.handshake import Agreement, Request, Response, known_names

logger = logging.getLogger("chatlab.room")
refusals = Seldom(logger)

PATH = "/room"
TURN = 64  # messages taken from one member before the others have their turn
DEPARTURES = 100  # how many of the last departures are remembered, with their reasons
SHUTDOWN_SECONDS = 2.0  # for members to answer the close with 1001, before their connections are dropped
OPEN_SECONDS = 5.0  # for a client to send its request
BEAT_SECONDS = 10.0  # between two heart-beats to a member that asked for them
CLOSING = "the room is closing"


HEART_BEAT = server_message(b"")


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
    """One client in the room: the peer of its WebSocket, and the sink that the fan-out writes to."""

    def __init__(
        self, room: Room, end: WebSocketEnd, number: int, name: str | None, address: str, *, parts: bool = False
    ) -> None:
        self.room = room
        self.name = name
        self.parts = parts  # it receives each line with its parts apart
        self.label = name or f"member {number}"
        self.address = address
        self.prefix = f"Server received from {name}: " if name else "Server received: "
        self.allowance = Allowance(room.rate) if room.rate else None
        self.sent = 0
        self.buffered = end.buffered
        self._end = end
        self._taken = 0

    def __str__(self) -> str:
        return f"{self.label} at {self.address}"

    def metrics(self) -> MemberMetrics:
        """How it is doing now."""
        return MemberMetrics(self.label, self.address, self.sent, self.buffered(), self._end.latency)

    # What its WebSocket calls.

    def receive(self, data: bytes, text: bool) -> bool:
        """Take a message; every so many, the others have their turn before the next one."""
        if self in self.room.members:  # else it was closed, and what it still says is not heard
            self.room.receive(self, data.decode() if text else data)
        self._taken += 1
        return self._taken % TURN != 0

    async def finish(self) -> None:
        """Let the others have their turn."""
        await asyncio.sleep(0)

    def end(self) -> None:
        """The connection is gone."""
        how = self._end.how_it_ended()
        self.room.leave(self, how.code or CloseCode.NO_STATUS_RECEIVED, how.reason)

    # What the fan-out calls.

    @property
    def descriptor(self) -> int | None:
        """The socket's, while it may be written to."""
        return self._end.descriptor

    def write(self, data: bytes) -> None:
        """Send text frames; each is made again if this member asked for compression."""
        if self._end.compresses:
            for text in texts_in(data):
                self._end.send(text, text=True)
        else:
            self._end.write(data)

    def close(self, code: int, reason: str) -> None:
        """Leave the room and start the closing handshake; nobody waits for its end."""
        self.room.leave(self, code, reason)
        self._end.close(code, reason)

    def abort(self) -> None:
        """Leave the room and drop the TCP connection."""
        self.room.leave(self, CloseCode.ABNORMAL_CLOSURE, "aborted")
        self._end.abort()


def texts_in(frames: bytes) -> Iterator[bytes]:
    """The payloads of whole, unmasked frames in a row."""
    rest = memoryview(frames)
    while (parsed := Frame.parse(rest)) is not None:
        frame, size = parsed
        yield frame.payload
        rest = rest[size:]


class Room:
    """The members, and what happens when one comes, speaks or goes."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None) -> None:
        self.fanout = Fanout(policy)
        self.rate = rate
        self.members: Group[Member] = self.fanout.group()
        self._see_lines: Group[Member] = self.fanout.group()
        self._see_parts: Group[Member] = self.fanout.group()
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES)
        self._names: Counter[str] = Counter()  # what the names that are taken look like
        self._numbers = count(1)
        self._wants_beats: dict[Member, None] = {}  # a dict, as a set that keeps its order
        self._next_beat: asyncio.TimerHandle | None = None

    def join(
        self, end: WebSocketEnd, name: str | None, address: str, *, beats: bool = False, parts: bool = False
    ) -> Member:
        """Let a client in, under the name it asks for or one like it, and tell everybody.

        `beats`: it wants heart-beats. `parts`: it wants each line with its parts apart, and its own name first.
        """
        member = Member(self, end, next(self._numbers), self._free_name(name), address, parts=parts)
        self.members.add(member)
        (self._see_parts if parts else self._see_lines).add(member)
        if parts:
            self.fanout.send(_message(Parts("you", name=member.name)), (member,))
        if member.name:
            self._names.update(skeletons(member.name))
            self.notify(f"{member.name} joined")
        if beats:
            self._wants_beats[member] = None
            self._beat_later()
        logger.info("%s joined", member)
        return member

    def leave(self, member: Member, code: int, reason: str) -> None:
        """Take a member out, once, and tell everybody."""
        if member not in self.members:
            return
        for group in (self.members, self._see_lines, self._see_parts):
            group.discard(member)
        self._wants_beats.pop(member, None)
        self.departures.append(Departure(member.label, code, reason))
        if member.name:
            self._names -= Counter(skeletons(member.name))
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
            self.pass_on(member, member.prefix + one_line(message))

    def pass_on(self, member: Member, line: str) -> None:
        """Send on what `member` said. A room that several instances share hands it to a broker here instead."""
        self.deliver(line)

    def deliver(self, line: str) -> None:
        """Send `line` to every member of this instance."""
        if self._see_lines:
            self._see_lines.send(server_message(line.encode()))
        if self._see_parts:
            self._see_parts.send(_message(parts_of(line)))

    def notify(self, what: str) -> None:
        """Tell everybody `what` happened, and how many are here now."""
        self.deliver(f"* {what} ({len(self.members)} here)")

    def tell(self, member: Member, error: str, outcome: str = "not sent") -> None:
        """Tell one member why what it sent was not passed on, or may not have been."""
        line = f"! {outcome}: {error}"
        self.fanout.send(_message(parts_of(line)) if member.parts else server_message(line.encode()), (member,))

    def is_taken(self, name: str) -> bool:
        """Whether a member here can be taken for one of that name."""
        return any(each in self._names for each in skeletons(name))

    def _refuse(self, member: Member, allowance: Allowance) -> None:
        limit = f"more than {allowance.limit.per_second:g} messages a second"
        if allowance.exhausted:
            member.close(CloseCode.POLICY_VIOLATION, f"flooding: {limit}")
        else:
            self.tell(member, limit)

    def _free_name(self, name: str | None) -> str | None:
        """`name` if it is free, else name-2, name-3, ..."""
        if name is None or not self.is_taken(name):
            return name
        return next(each for n in count(2) if not self.is_taken(each := f"{name}-{n}"))

    def _beat_later(self) -> None:
        if self._next_beat is None and self._wants_beats:
            self._next_beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        """Send heart-beats: pings are answered by the browser, and its pages never learn of them."""
        self.fanout.send(HEART_BEAT, tuple(self._wants_beats))
        self._next_beat = None
        self._beat_later()

    async def aclose(self) -> None:
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


def _message(parts: Parts) -> bytes:
    """The WebSocket message that carries the parts of a line."""
    return server_message(msgspec.json.encode(parts))


# --- The room as in the article ---


class RoomAsInTheArticle:
    """The article's ChatSocketHandler, method by method: a registry, and a loop that sends to one after another.

    What is wrong with it is left in. One session that does not read blocks the loop once its buffers are full, and with
    it the sender. One session that is going away makes `send` raise: those after it get nothing, and the sender, whose
    handler this is, is closed with 1011. Any number of loops run at once, so members see messages in different orders.
    A text goes out as it came: with a line end in it, it passes for somebody else's line wherever lines are shown.
    """

    def __init__(self) -> None:
        self.sessions: dict[UUID, ServerConnection] = {}
        self.transports = websockets_library.Transports(Held(logger))
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

    async def aclose(self) -> None:
        """Nothing runs on here once the sessions are closed."""

    def metrics(self) -> Metrics:
        """What there is to see from outside: the sessions, and what waits for each."""
        members = tuple(
            MemberMetrics(
                f"session {number}", peer_address(each.remote_address), 0, self.transports.buffered(each), each.latency
            )
            for number, each in enumerate(self.sessions.values(), 1)
        )
        return Metrics(members, (), self.messages, self.deliveries)


# --- Admission: what is asked of an HTTP request before it becomes a member ---


@dataclass(frozen=True)
class Admission:
    """Which requests may become members: by path, room code and name, then as every WebSocket server judges them."""

    origins: Sequence[str] = ()
    guard: CodeGuard | None = None
    compression: bool = False
    names: Collection[str] = ("*",)

    def __call__(self, request: Request, address: str = "") -> tuple[Response, Agreement]:
        """Return the answer that agrees to `request`; raise `HandshakeError` with the status that refuses it.

        `address` is the client's, by which wrong room codes are counted.
        """
        handshake.check_host(request, self.names, self.origins)
        if _path(request.target) != PATH:
            raise HandshakeError(f"nothing here; the room is at {PATH}", status=404)
        if self.guard is not None:
            self.guard.check(query(request.target, "code") or "", address)
        asked_name(request.target)
        return handshake.accept(request, origins=self.origins, names=self.names, compression=self.compression)


def _path(target: str) -> str:
    try:
        return urlsplit(target).path
    except ValueError:
        raise HandshakeError("target is no URL") from None  # it may hold the room code, and this is logged


def query(target: str, name: str) -> str | None:
    """The last value of a query parameter, or None."""
    try:
        return parse_qs(urlsplit(target).query, max_num_fields=10).get(name, [None])[-1]
    except ValueError:
        raise HandshakeError("more than 10 query parameters") from None


def asked_name(target: str) -> str | None:
    """The name a request asks for; raises `HandshakeError` for one that could be mistaken for something else."""
    return required_name(query(target, "name") or "")


def peer_address(peer: Sequence[object] | None) -> str:
    """The client's address, for logs and metrics: 127.0.0.1:50123."""
    host, port, *_ = peer or ("?", 0)
    return f"{host}:{port}"


# --- The server ---


class Handler(Protocol):
    """What a server needs of a room."""

    async def aclose(self) -> None:
        """Stop what runs besides the members."""

    def metrics(self) -> Metrics:
        """What the room is doing now."""


class RoomServer:
    """A room that listens; close it with `aclose()` or `async with`."""

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
    limits: PlaceLimits = PlaceLimits(),  # noqa: B008 (it cannot change)
    trusted_proxies: Sequence[str] = (),
    room: Callable[[SlowReaderPolicy, RateLimit | None], Room] = Room,
) -> RoomServer:
    """Open the room that holds; `port=0` takes a free one.

    `origins`: whose pages may come in besides the room's own, as https://example.org; "*" lets in all of them.
    `host_names`: what this server is called, besides its addresses, localhost and names without a dot.
    `code`: the room code to ask for. `policy`: for slow readers. `rate`: for fast senders; without it, one member can
    send as much as the machine takes, which is what a measurement wants and a class does not. `max_size`: of one
    message, in bytes; beyond it a member is closed with 1009. `ping_interval`, `ping_timeout`: keep-alive, in seconds.

    `compression="deflate"` allows permessage-deflate. It is off because with it no two members share a byte: each
    message is compressed again for each member, with a memory of its own for each (some 300 KiB at zlib's defaults).

    `send_buffer`: the kernel's send buffer for each member, in bytes (SO_SNDBUF); None leaves it to the kernel, which
    gives up to some megabytes. With a small one, a member who does not read is noticed sooner.

    `limits`: how many connections there may be. `trusted_proxies`: addresses or networks of proxies whose
    X-Forwarded-For names the client, for `limits` and for the brake on guessing the code.

    `room` makes the room from `policy` and `rate`: `Room`, or a kind of it.
    """
    policy = policy or SlowReaderPolicy()
    settings = EndSettings(
        KeepAlive(ping_interval, ping_timeout, Close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")),
        close_timeout=policy.drain_seconds + 1,  # no sooner: a slow reader has that long to come to its close
        held=Held(logger),
    )
    names = known_names((host, *host_names), origins)
    guard = None if code is None else CodeGuard(code)
    admission = Admission(tuple(origins), guard, compression == "deflate", names)
    gate = Gate.of(limits, Refusals(logger), TrustedProxies(trusted_proxies))
    entrance = Entrance(room(policy, rate), admission, settings, max_size, gate, limits)
    http = HttpServer(
        entrance.application(), logger, first_request_seconds=OPEN_SECONDS, send_buffer=send_buffer, gate=gate
    )
    try:
        await http.listen(host, port)
    except BaseException:
        await http.aclose(deadline=0)
        raise
    return RoomServer(entrance.room, http.host, http.port, code, partial(entrance.aclose, http))


class Entrance:
    """HTTP for the room that holds: the page, and WebSockets to its members."""

    def __init__(
        self,
        room: Room,
        admission: Admission,
        settings: EndSettings,
        max_size: int,
        gate: Gate,
        limits: PlaceLimits,
    ) -> None:
        self.room = room
        self._gate = gate
        self._places = limits.places()  # of WebSockets, by who is behind a proxy; the gate's are of TCP connections
        self._admission = admission
        self._settings = settings
        self._max_size = max_size
        self._ends: set[WebSocketEnd] = set()
        self._closing = False

    def application(self) -> web.Application:
        """Everything at one handler: it decides what there is, and for whom."""
        app = web.Application()
        app.middlewares.append(judged_by_name(self._admission.names, self._admission.origins, refusals))
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def aclose(self, http: HttpServer) -> None:
        """Close every member with 1001, and drop those who have not answered in time."""
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
        with self._place(request) as address:
            return await self._upgrade(request, address)

    @contextmanager
    def _place(self, request: web.Request) -> Iterator[str]:
        """Hold a place for a client while it is here, and yield its address; 503 if there is none."""
        forwarded_for = request.headers.getall("X-Forwarded-For", ())
        address = self._gate.proxies.client_behind(request.remote or "", forwarded_for)
        counted = self._gate.counted_as(address)
        if over := self._places.take(counted):
            self._gate.refusals.note(over, REMEDY[over], whose=counted)
            raise web.HTTPServiceUnavailable(text=refusal_of(over), headers={"Retry-After": "10"})
        try:
            yield address
        finally:
            self._places.give_back(counted)

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


async def start_as_in_the_article(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = ("*",),
    host_names: Sequence[str] = (),
    send_buffer: int | None = None,
) -> RoomServer:
    """Open the article's room: any origin by default, no limits but the library's, one send after another.

    It runs on the library `websockets`, as the handler that lesson 03 writes does.
    """
    article, names = RoomAsInTheArticle(), known_names((host, *host_names), origins)
    server = await serve(
        article.handle,
        host,
        port,
        process_request=websockets_library.judged_by(Admission(tuple(origins), names=names)),
        create_connection=article.transports.connection_class(send_buffer),
        open_timeout=OPEN_SECONDS,
        compression=None,
        server_header=None,
        logger=websockets_library.quiet(logger),
    )
    host, port = server.sockets[0].getsockname()[:2]
    close = partial(websockets_library.close, server, article.transports, SHUTDOWN_SECONDS, CLOSING)
    return RoomServer(article, host, port, None, close)
