"""Lesson 02's experiments: both directions at once, one task in five ways, a line gone silent, a client not reading.

What is measured is measured on a `Wire`: its trace knows what passed, when, and how much. Times are seconds.
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
    """When each side's bytes passed the wire: for each direction, the moments (seconds) and the bytes so far."""

    passed: dict[Peer, list[tuple[float, int]]] = field(repr=False)

    @classmethod
    def of(cls, trace: Trace, *, skip: int) -> Transfer:
        """Read it from a trace; the first `skip` bytes of each side, its handshake or headers, do not count."""
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
        """When the first and the last of what `side` sent passed."""
        return self.passed[side][0][0], self.passed[side][-1][0]

    @property
    def seconds(self) -> float:
        """How long both took together."""
        return max(self.span("client")[1], self.span("server")[1])

    @property
    def overlap(self) -> float:
        """The part of that time in which both directions carried data, 0 to 1."""
        (client_from, client_to), (server_from, server_to) = self.span("client"), self.span("server")
        return max(0.0, min(client_to, server_to) - max(client_from, server_from)) / self.seconds


async def two_at_once(*, size: int = MIB, bytes_per_second: float = 2e6) -> Transfer:
    """A client and a server send each other `size` bytes over one WebSocket, on a line of limited speed."""

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
    for _ in range(size // PIECE):
        await send(bytes(PIECE))


async def _receive(recv: Callable[[], Awaitable[str | bytes]], size: int) -> None:
    received = 0
    while received < size:
        received += len(await recv())


async def in_turns(*, size: int = MIB, bytes_per_second: float = 2e6) -> Transfer:
    """The same exchange by one HTTP request and its response, each of `size` bytes, on a line of the same speed."""

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


@dataclass(frozen=True)
class Way:
    """What one way to hear of messages cost: the delay of each, and what its wire carried, both directions together."""

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
        """Everything on the wire, handshakes and empty answers included, shared among the messages."""
        return self.octets / len(self.delays)


class Feed:
    """A server of numbered messages that can be heard of in four ways: /poll, /wait, /stream and /socket.

    The first three take `?after=N`: the messages from number N on.
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
        """Publish one more message: a text without line ends."""
        async with self._news:
            self.messages.append(message)
            self.said.append(time.monotonic())
            self._news.notify_all()

    async def _after(self, number: int) -> list[str]:
        """The messages from `number` on, as soon as there is one."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.messages) > number)
            return self.messages[number:]

    async def _poll(self, request: web.Request) -> web.Response:
        return web.Response(text="\n".join(self.messages[int(request.query["after"]) :]))

    async def _wait(self, request: web.Request) -> web.Response:
        """Long polling: hold the question until there is an answer."""
        return web.Response(text="\n".join(await self._after(int(request.query["after"]))))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: one answer that never ends (https://html.spec.whatwg.org/multipage/server-sent-events)."""
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
            async for _ in websocket:  # until the client's Close, which is answered here
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
    """Publish messages at irregular moments to five clients at once, each on a wire of its own; what each way cost."""

    async def poll(session: ClientSession, url: str, arrived: list[float], count: int) -> None:
        while len(arrived) < count:
            await _ask(session, f"{url}poll", arrived)
            await asyncio.sleep(poll_every)

    listeners: dict[str, tuple[Listener, bool]] = {
        "polling, a connection each": (poll, True),
        "polling": (poll, False),
        "long polling": (_long_poll, False),
        "server-sent events": (_listen_to_stream, False),
        "WebSocket": (_listen_to_socket, False),
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
        tuple(heard - spoken for spoken, heard in zip(said, arrived, strict=True)),
        octets=sum(len(record.data) for record in trace.records),
        requests=len(trace.filter("http", "request")),
        connections=len(trace.filter("tcp", "open")),
    )


# --- A line gone silent ----------------------------------------------------------------------------------------------


async def noticed_after(keepalive: float | None, *, patience: float = 2.0) -> float | None:
    """Silence the line to a client; return when the server has noticed, or None if it has not within `patience`.

    `keepalive` is how often the server pings, and how long it waits for the Pong; None for never.
    """
    gone = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        gone.set()

    server = serve(handler, HOST, 0, ping_interval=keepalive, ping_timeout=keepalive, close_timeout=0.1)
    async with server as running, Wire(_url_of(running)) as wire:
        client = await connect(wire.url, ping_interval=None, proxy=None)
        try:
            wire.half_open()
            began = time.monotonic()
            async with asyncio.timeout(patience):
                await gone.wait()
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
        """The most that waited in the server's memory."""
        return max(waiting for _, _, waiting in self.samples)

    def sent_between(self, start: float, end: float) -> int:
        """How many bytes the server sent in that time."""
        sent = [so_far for at, so_far, _ in self.samples if start <= at <= end]
        return sent[-1] - sent[0] if sent else 0


async def nobody_reads(*, waits: bool, reads_at: float = 0.5, seconds: float = 1.0, every: float = 0.002) -> Flow:
    """Send 64 KiB `every` so often to a client that reads nothing at first, and then all there is.

    With `waits` the server awaits each send, and so feels that nobody reads; without, it hands over and goes on. Both
    sockets are given small buffers: otherwise the two kernels would take in megabytes before anybody felt anything.
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
    # Before connect: the window offered to the server is fixed there (tcp(7)).
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
    """Serve an aiohttp application at the address that is yielded; requests under way at the end are dropped."""
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _url_of(server: Server) -> str:
    return f"ws://{HOST}:{next(iter(server.sockets)).getsockname()[1]}/"
