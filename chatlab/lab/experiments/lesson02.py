"""Lesson 02's experiments: both directions at once, one task in five ways, a silent line, a client that does not read.

Measurements come from a `Wire`, whose trace records the bytes that passed and when. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, TCPConnector, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from chatlab.lab.wire.trace import Peer, Trace
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _

__all__ = [
    "Feed",
    "Flow",
    "Transfer",
    "Way",
    "five_ways",
    "in_turns",
    "nobody_reads",
    "noticed_after",
    "two_at_once",
]

MIB = 1024 * 1024
PIECE = 16 * 1024
SMALL_BUFFER = 128 * 1024
HOST = "127.0.0.1"


# --- Both directions at once -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """When the bytes of each side passed the wire: for each direction, the times (seconds) and the bytes so far."""

    passed: dict[Peer, list[tuple[float, int]]] = field(repr=False)

    @classmethod
    def of(cls, trace: Trace, *, skip: int) -> Transfer:
        """Read the transfer from a trace, without the first `skip` bytes of each side, its handshake or headers."""
        passed: dict[Peer, list[tuple[float, int]]] = {"client": [], "server": []}
        total: dict[Peer, int] = {"client": 0, "server": 0}
        for record in trace.records:
            if record.sender == "wire" or not record.data or record.passed is None:
                continue
            before = total[record.sender]
            total[record.sender] = after = before + len(record.data)
            if after > skip:
                moments = passed[record.sender]
                moments += [(record.passed, after)] if moments else [(record.time, before), (record.passed, after)]
        began = min(moments[0][0] for moments in passed.values())
        return cls({side: [(at - began, so_far) for at, so_far in moments] for side, moments in passed.items()})

    def span(self, side: Peer) -> tuple[float, float]:
        """Return the times at which the first and the last byte from `side` passed."""
        return self.passed[side][0][0], self.passed[side][-1][0]

    @property
    def seconds(self) -> float:
        """The time from the start until both directions were done."""
        return max(self.span("client")[1], self.span("server")[1])

    @property
    def overlap(self) -> float:
        """The fraction of that time in which both directions carried data, 0 to 1."""
        (client_from, client_to), (server_from, server_to) = self.span("client"), self.span("server")
        return max(0.0, min(client_to, server_to) - max(client_from, server_from)) / self.seconds


async def two_at_once(*, size: int = MIB, bytes_per_second: float = 2e6) -> Transfer:
    """Let a client and a server send each other `size` bytes over one WebSocket, on a line of limited speed."""

    async def handler(connection: ServerConnection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(connection.send, size))
            group.create_task(_receive(connection.recv, size))
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


async def five_ways(*, messages: int = 20, poll_every: float = 0.25, seed: int = 1) -> list[Way]:
    """Publish messages at irregular times to five clients, each on its own wire; return the cost of each way."""

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
    feed = Feed()
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
