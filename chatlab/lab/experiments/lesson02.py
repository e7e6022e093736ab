"""Lesson 02's experiments: both directions at once, one task in five ways, a silent line, a client that does not read.

Measurements come from a `Wire`, whose trace records the bytes that passed and when. Times are in seconds. `c3`, `c4`,
`c5` and `c8` return the verdicts on the article's claims. Each compares one figure with a threshold; where the figure
is too close to it, the claim counts as not tested. Left out: the lesson's pictures (`lab/pictures`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, TCPConnector, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.hand_client import HandClient
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Events, Peer, Trace
from chatlab.lab.wire.view import SequencePicture
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _
from chatlab.websocket.connection import Closed, Message
from chatlab.websocket.frames import Frame

__all__ = [
    "Feed",
    "Flow",
    "Transfer",
    "Way",
    "c3",
    "c4",
    "c5",
    "c8",
    "drawn",
    "five_ways",
    "in_turns",
    "nobody_reads",
    "noticed_after",
    "send_frame",
    "speak_in_order",
    "two_at_once",
]

MIB = 1024 * 1024
PIECE = 16 * 1024
SMALL_BUFFER = 128 * 1024
HOST = "127.0.0.1"


# --- A frame by hand -------------------------------------------------------------------------------------------------


async def send_frame(client: HandClient, frame: bytes) -> Message | None:
    """Send a frame and return the message that comes back; say in a sentence what happened if none does."""
    if any(isinstance(event, Closed) for event in client.events):
        print(_("the connection has ended before; run the section's first cell again"))
        return None
    before = len(client.events)
    read = Frame.parse(frame)
    whole = read is not None and read[1] == len(frame)  # or bytes are left over, which the server reads as a new frame

    def answer() -> Message | Closed | None:
        new = client.events[before:]
        return next((e for e in new if isinstance(e, Closed) or (whole and isinstance(e, Message))), None)

    with contextlib.suppress(OSError, TimeoutError):
        await client.write(frame)
        await until(lambda: answer() is not None, timeout=2)
    match answer():
        case Message() as message:
            return message
        case Closed(code, reason):
            ended = _("the connection ended: {code} {reason}; run the section's first cell again")
            print(ended.format(code=code, reason=reason))
        case None:
            print(_("no answer: the server waits for more bytes, or is gone; run the section's first cell again"))
    return None


TOO_CLOSE = _("the figure is too close to its threshold to tell; run it again")

# --- Whenever it likes -----------------------------------------------------------------------------------------------


async def speak_in_order(order: str) -> Trace:
    """Let a client ("c") and a server ("s") send one message for each letter of `order`; return what the wire saw."""
    if not order or set(order) - set("cs"):
        print(_("`order` takes the letters c (the client) and s (the server), and at least one of them"))
        return Trace()

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with (
        serve(listen, HOST, 0, compression=None) as server,
        Wire(_url_of(server)) as wire,
        connect(wire.url, compression=None, proxy=None) as client,
    ):
        (connection,) = server.connections
        for number, letter in enumerate(order, start=1):
            await (client if letter == "c" else connection).send(f"message {number}")
            await wire.wait_for("websocket", "text", count=number)
    return wire.trace


def drawn(seen: Trace) -> SequencePicture | None:
    """Return the messages of a recording as a picture; None if there are none."""
    texts = seen.filter("websocket", "text")
    return texts.sequence() if texts else None


def c8(seen: Events) -> Verdict:
    """Return the verdict on C8 from a recording: whether each side sent twice in a row, with no answer in between."""
    order = "".join(event.sender[0] for event in seen.filter("websocket", ("text", "binary")))
    shorter = min(_longest_run(order, letter) for letter in "cs")

    async def again() -> Verdict:
        return c8(await speak_in_order("ccsssc"))

    return verdict(
        "C8",
        holds=shorter >= 2 if order else None,
        because=_("one side never sent twice in a row") if order else _("no message was sent"),
        measured=_("who spoke, in order: {order}").format(order=order),
        figure=Figure(_("messages in a row, from the side with the shorter run"), shorter, 2),
        again=again,
    )


def _longest_run(order: str, letter: str) -> int:
    return max((len(list(run)) for each, run in itertools.groupby(order) if each == letter), default=0)


# --- Both directions at once -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """When the bytes of each side passed the wire: for each direction, the times (seconds) and the bytes so far.

    `carried` has the periods in which bytes of that side were on the wire: from their arrival until they had passed.
    """

    passed: dict[Peer, list[tuple[float, int]]] = field(repr=False)
    carried: dict[Peer, list[tuple[float, float]]] = field(repr=False)

    @classmethod
    def of(cls, trace: Trace, *, skip: int) -> Transfer:
        """Read the transfer from a trace, without the first `skip` bytes of each side, its handshake or headers."""
        passed: dict[Peer, list[tuple[float, int]]] = {"client": [], "server": []}
        carried: dict[Peer, list[tuple[float, float]]] = {"client": [], "server": []}
        total: dict[Peer, int] = {"client": 0, "server": 0}
        for record in trace.records:
            if record.sender == "wire" or not record.data or record.passed is None:
                continue
            before = total[record.sender]
            total[record.sender] = after = before + len(record.data)
            if after > skip:
                moments = passed[record.sender]
                moments += [(record.passed, after)] if moments else [(record.time, before), (record.passed, after)]
                carried[record.sender].append((record.time, record.passed))
        began = min(moments[0][0] for moments in passed.values())
        return cls(
            {side: [(at - began, so_far) for at, so_far in moments] for side, moments in passed.items()},
            {side: _joined((start - began, end - began) for start, end in all_) for side, all_ in carried.items()},
        )

    def span(self, side: Peer) -> tuple[float, float]:
        """Return the times at which the first and the last byte from `side` passed."""
        return self.passed[side][0][0], self.passed[side][-1][0]

    @property
    def seconds(self) -> float:
        """The time from the start until both directions were done."""
        return max(self.span("client")[1], self.span("server")[1])

    @property
    def overlap(self) -> float:
        """The fraction of the time with bytes on the wire in which both directions had some, 0 to 1."""
        client, server = self.carried["client"], self.carried["server"]
        both = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in client for b in server)
        return both / sum(end - start for start, end in _joined([*client, *server]))


def _joined(periods: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the same time as periods that do not touch each other, in order."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(periods):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


Exchange = Callable[[ServerConnection, int], Awaitable[None]]


async def both_at_once(connection: ServerConnection, size: int) -> None:
    """Send `size` bytes and, at the same time, receive as many."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_send(connection.send, size))
        group.create_task(_receive(connection.recv, size))


async def two_at_once(*, size: int = MIB, bytes_per_second: float = 2e6, exchange: Exchange = both_at_once) -> Transfer:
    """Let a client and a server send each other `size` bytes over one WebSocket, on a line of limited speed.

    `exchange(connection, size)` is the server's part.
    """

    async def handler(connection: ServerConnection) -> None:
        await exchange(connection, size)
        await connection.wait_closed()

    async with serve(handler, HOST, 0, compression=None) as server, Wire(_url_of(server)) as wire:
        wire.throttle(bytes_per_second)
        async with connect(wire.url, compression=None, proxy=None) as client, asyncio.TaskGroup() as group:
            group.create_task(_send(client.send, size))
            group.create_task(_receive(client.recv, size))
    return Transfer.of(wire.trace, skip=PIECE)


async def _send(send: Callable[[bytes], Awaitable[None]], size: int) -> None:
    for __ in range(size // PIECE):
        await send(bytes(PIECE))


async def _receive(recv: Callable[[], Awaitable[str | bytes]], size: int) -> None:
    received = 0
    while received < size:
        received += len(await recv())


async def in_turns(*, size: int = MIB, bytes_per_second: float = 2e6) -> Transfer:
    """Exchange the same bytes in one HTTP request and its response, of `size` bytes each, on a line of that speed."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=bytes(size))

    application = web.Application(client_max_size=2 * size)
    application.router.add_post("/", answer)
    async with _serving(application) as url, Wire(url) as wire:
        wire.throttle(bytes_per_second)
        async with ClientSession() as session, session.post(wire.url, data=bytes(size)) as response:
            await response.read()
    return Transfer.of(wire.trace, skip=PIECE)


def c3(both: Transfer, turns: Transfer) -> Verdict:
    """Return the verdict on C3 from a transfer over WebSocket; `turns` is the same over HTTP, to compare."""

    async def again() -> Verdict:
        return c3(await two_at_once(), await in_turns())

    holds = _decided(both.overlap, good=0.5, bad=0.25)
    found = _("both at once: {share:.0%} of {seconds:.2f} s; over HTTP {other:.0%} of {turns:.2f} s")
    return verdict(
        "C3",
        holds=holds,
        because=TOO_CLOSE if holds is None else _("one direction waits for the other"),
        measured=found.format(share=both.overlap, seconds=both.seconds, other=turns.overlap, turns=turns.seconds),
        figure=Figure(_("share of the time in which both directions carried data"), both.overlap, 0.5),
        again=again,
    )


def _decided(value: float, *, good: float, bad: float) -> bool | None:
    """Return whether a claim holds: at `good` and beyond it does, at `bad` and beyond it does not, None in between."""
    if good < bad:
        value, good, bad = -value, -good, -bad
    if bad < value < good:
        return None
    return value >= good


# --- One task, five ways ---------------------------------------------------------------------------------------------

POLLING_ANEW = "polling, a connection each"  # not shown: a key
POLLING = "polling"
LONG_POLLING = "long polling"  # not shown: a key
EVENTS = "server-sent events"  # not shown: a key
WEBSOCKET = "WebSocket"
WAYS = {
    POLLING_ANEW: _("polling, a connection each"),
    POLLING: _("polling"),
    LONG_POLLING: _("long polling"),
    EVENTS: _("server-sent events"),
    WEBSOCKET: _("WebSocket"),
}


@dataclass(frozen=True)
class Way:
    """The cost of one way to receive messages: the delay of each, and the traffic of both directions together.

    `name` is a key, the same in every language; `label` is for people.
    """

    name: str
    delays: tuple[float, ...] = field(repr=False)
    octets: int
    requests: int
    connections: int

    @property
    def median(self) -> float:
        """The middle one of the delays."""
        return statistics.median(self.delays)

    @property
    def octets_per_message(self) -> float:
        """Everything on the wire, handshakes and empty answers included, divided by the number of messages."""
        return self.octets / len(self.delays)

    @property
    def label(self) -> str:
        """The name, translated."""
        return WAYS.get(self.name, self.name)


class Feed:
    """A server that offers numbered messages in four ways: /poll, /wait, /stream and /socket.

    The first three take `?after=N` and return the messages from number N on.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.said: list[float] = []  # when, on the monotonic clock
        self._news = asyncio.Condition()
        self.application = web.Application()
        for path, handler in (
            ("/poll", self._poll),
            ("/wait", self._wait),
            ("/stream", self._stream),
            ("/socket", self._socket),
        ):
            self.application.router.add_get(path, handler)

    async def say(self, message: str) -> None:
        """Publish a message: a text without line ends."""
        async with self._news:
            self.messages.append(message)
            self.said.append(time.monotonic())
            self._news.notify_all()

    async def _after(self, number: int) -> list[str]:
        """Return the messages from `number` on, as soon as there is one."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.messages) > number)
            return self.messages[number:]

    async def _poll(self, request: web.Request) -> web.Response:
        return web.Response(text="\n".join(self.messages[int(request.query["after"]) :]))

    async def _wait(self, request: web.Request) -> web.Response:
        """Long polling: hold the request until there is a message."""
        return web.Response(text="\n".join(await self._after(int(request.query["after"]))))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: a response without end (https://html.spec.whatwg.org/multipage/server-sent-events)."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = int(request.query["after"])
        while True:
            for message in await self._after(number):
                number += 1
                await response.write(f"data: {message}\n\n".encode())

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send_all(websocket))
            async for __ in websocket:  # until the client's Close, which aiohttp answers
                pass
            sending.cancel()
        return websocket

    async def _send_all(self, websocket: web.WebSocketResponse) -> None:
        number = 0
        while True:
            for message in await self._after(number):
                number += 1
                await websocket.send_str(message)


Listener = Callable[[ClientSession, str, list[float], int], Awaitable[None]]


async def five_ways(
    *, messages: int = 20, poll_every: float = 0.25, seed: int = 1, feed: Feed | None = None
) -> list[Way]:
    """Publish messages at irregular times to five clients, each on its own wire; return the cost of each way.

    `poll_every` is the pause between two questions of the clients that poll, in seconds.
    """

    async def poll(session: ClientSession, url: str, arrived: list[float], count: int) -> None:
        while len(arrived) < count:
            await _ask(session, f"{url}poll", arrived)
            await asyncio.sleep(poll_every)

    listeners: dict[str, tuple[Listener, bool]] = {
        POLLING_ANEW: (poll, True),
        POLLING: (poll, False),
        LONG_POLLING: (_long_poll, False),
        EVENTS: (_listen_to_stream, False),
        WEBSOCKET: (_listen_to_socket, False),
    }
    feed = feed or Feed()
    async with _serving(feed.application) as url, contextlib.AsyncExitStack() as stack:
        wires = {name: await stack.enter_async_context(Wire(url)) for name in listeners}
        arrived: dict[str, list[float]] = {name: [] for name in listeners}
        async with asyncio.TaskGroup() as group:
            for name, (listen, close_each) in listeners.items():
                client = _client(listen, wires[name].url, arrived[name], messages, close_each)
                group.create_task(client, name=name)
            for wire in wires.values():
                await wire.wait_for("http", "request")
            await _publish(feed, messages, random.Random(seed))
    return [_way(name, wires[name].trace, feed.said, arrived[name]) for name in listeners]


async def _publish(feed: Feed, count: int, chance: random.Random) -> None:
    for number in range(count):
        await asyncio.sleep(chance.uniform(0.02, 0.25))
        await feed.say(f"점심 먹을까요? 🍜 {number:2}")


async def _client(listen: Listener, url: str, arrived: list[float], count: int, close_each: bool) -> None:
    async with ClientSession(
        connector=TCPConnector(force_close=close_each), timeout=ClientTimeout(total=None)
    ) as session:
        await listen(session, url, arrived, count)


async def _ask(session: ClientSession, url: str, arrived: list[float]) -> None:
    async with session.get(url, params={"after": len(arrived)}) as response:
        lines = (await response.text()).splitlines()
    arrived += [time.monotonic()] * len(lines)


async def _long_poll(session: ClientSession, url: str, arrived: list[float], count: int) -> None:
    while len(arrived) < count:
        await _ask(session, f"{url}wait", arrived)


async def _listen_to_stream(session: ClientSession, url: str, arrived: list[float], count: int) -> None:
    async with session.get(f"{url}stream", params={"after": 0}) as response:
        while len(arrived) < count:
            if (await response.content.readline()).startswith(b"data: "):
                arrived.append(time.monotonic())


async def _listen_to_socket(session: ClientSession, url: str, arrived: list[float], count: int) -> None:
    websocket: ClientWebSocketResponse
    async with session.ws_connect(f"{url}socket", compress=0) as websocket:
        while len(arrived) < count:
            await websocket.receive_str()
            arrived.append(time.monotonic())


def _way(name: str, trace: Trace, said: list[float], arrived: list[float]) -> Way:
    return Way(
        name,
        tuple(received - sent for sent, received in zip(said, arrived, strict=True)),
        octets=sum(len(record.data) for record in trace.records),
        requests=len(trace.filter("http", "request")),
        connections=len(trace.filter("tcp", "open")),
    )


def c4(ways: Sequence[Way]) -> Verdict:
    """Return the verdict on C4 from the costs of the five ways: whether WebSocket's delay is below polling's."""
    by_name = {way.name: way for way in ways}
    socket_, polling = by_name[WEBSOCKET].median, by_name[POLLING].median
    holds = _decided(ratio := socket_ / polling, good=0.5, bad=1.0)
    others_too = max(by_name[LONG_POLLING].median, by_name[EVENTS].median) <= 0.5 * polling
    return verdict(
        "C4",
        holds=holds,
        when=_("compared with polling (long polling and server-sent events are as quick)") if others_too else "",
        because=TOO_CLOSE if holds is None else _("polling was no slower"),
        measured=", ".join(f"{way.label} {way.median * 1000:.1f} ms" for way in ways),
        figure=Figure(_("median delay, WebSocket / polling"), ratio, 0.5, at_least=False),
        again=_again(c4),
    )


def c5(ways: Sequence[Way]) -> Verdict:
    """Return the verdict on C5 from the costs of the five ways: whether a message over WebSocket needs no new setup.

    It is also compared with HTTP's ways in bytes. Ways that keep a connection as WebSocket does, and cost about the
    same, are a condition: then the saving is not WebSocket's alone.
    """
    by_name = {way.name: way for way in ways}
    socket_ = by_name[WEBSOCKET]
    asking = min(by_name[name].octets_per_message for name in (POLLING_ANEW, POLLING, LONG_POLLING))
    kept = socket_.connections == socket_.requests == 1
    ratio = socket_.octets_per_message / asking
    holds = kept and _decided(ratio, good=0.5, bad=1.0)
    alike = by_name[EVENTS].octets_per_message <= 2 * socket_.octets_per_message
    return verdict(
        "C5",
        holds=holds,
        when=_("compared with asking (server-sent events keep one connection and cost about as little)")
        if alike
        else "",
        because=TOO_CLOSE if holds is None else _("asking cost no more") if kept else _("it connected more than once"),
        measured=", ".join(f"{way.label} {way.octets_per_message:.0f} B, {way.connections}" for way in ways),
        figure=Figure(_("bytes for each message, WebSocket / cheapest way of asking"), ratio, 0.5, at_least=False),
        again=_again(c5),
    )


def _again(judge: Callable[[Sequence[Way]], Verdict]) -> Callable[[], Awaitable[Verdict]]:
    async def again() -> Verdict:
        return judge(await five_ways())

    return again


# --- A silent line ---------------------------------------------------------------------------------------------------


async def noticed_after(keepalive: float | None, *, patience: float = 2.0) -> float | None:
    """Silence the line to a client; return the seconds until the server noticed, or None if `patience` was not enough.

    `keepalive` is the time between the server's Pings and also its time limit for a Pong; None means no Pings.
    """
    closed = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.set()

    server = serve(handler, HOST, 0, ping_interval=keepalive, ping_timeout=keepalive, close_timeout=0.1)
    async with server as running, Wire(_url_of(running)) as wire:
        client = await connect(wire.url, ping_interval=None, proxy=None)
        try:
            wire.half_open()
            began = time.monotonic()
            async with asyncio.timeout(patience):
                await closed.wait()
            return time.monotonic() - began
        except TimeoutError:
            return None
        finally:
            client.transport.abort()


# --- Nobody reads ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """A server that sends to a client reading late: samples of (seconds, bytes sent, bytes waiting in its memory)."""

    samples: tuple[tuple[float, int, int], ...] = field(repr=False)
    reads_at: float

    @property
    def most_waiting(self) -> int:
        """The largest number of bytes that waited in the server's memory."""
        return max(waiting for __, __, waiting in self.samples)

    def sent_between(self, start: float, end: float) -> int:
        """Return the number of bytes that the server sent in that time."""
        sent = [so_far for at, so_far, __ in self.samples if start <= at <= end]
        return sent[-1] - sent[0] if sent else 0


async def nobody_reads(*, waits: bool, reads_at: float = 0.5, seconds: float = 1.0, every: float = 0.002) -> Flow:
    """Send 64 KiB every `every` seconds to a client that reads nothing at first, and from `reads_at` on everything.

    With `waits` the server awaits each send, so it notices that the client does not read; without, it never waits. Both
    sockets get small buffers: otherwise the two kernels would take megabytes before the server noticed anything.
    """
    piece = bytes(4 * PIECE)
    sent = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal sent
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(seconds):
                while True:
                    if waits:
                        await connection.send(piece)
                    else:
                        broadcast([connection], piece)
                    sent += len(piece)
                    await asyncio.sleep(every)

    async with serve(handler, HOST, 0, compression=None, ping_interval=None) as server:
        client = await _connect_with_small_buffer(_url_of(server))
        (connection,) = server.connections
        reading: asyncio.Task[None] | None = None
        samples: list[tuple[float, int, int]] = []
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            samples.append((now, sent, connection.transport.get_write_buffer_size()))
            if now >= reads_at and reading is None:
                reading = asyncio.create_task(_read_all(client))
            await asyncio.sleep(0.01)
        client.transport.abort()
        if reading is not None:
            await reading
    return Flow(tuple(samples), reads_at)


async def _connect_with_small_buffer(url: str) -> ClientConnection:
    parts = urlsplit(url)
    sock = socket.socket()
    # Set it before connecting: the window offered to the server is fixed then (tcp(7)).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    return await connect(url, sock=sock, compression=None, max_queue=1, ping_interval=None, proxy=None)


async def _read_all(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()


# --- Servers ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _serving(application: web.Application) -> AsyncIterator[str]:
    """Serve an aiohttp application and yield its URL; requests in progress at the end are dropped."""
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _url_of(server: Server) -> str:
    return f"ws://{HOST}:{next(iter(server.sockets)).getsockname()[1]}/"
