"""Compare what a room costs a server: chatlab's room and its peers, on this machine, in one run.

    python -m benchmarks.room                 both measurements, about six minutes
    python -m benchmarks.room --quick         one short round of each, to check that everything works
    python -m benchmarks.room throughput --members 100 --sizes 64,1024 --windows 1,4,32 --rounds 5
    python -m benchmarks.room stall --members 100

Each server runs in its own process, pinned to the first core if there are two. The load runs in this process, pinned to
the second. A machine's speed drifts, so the servers take turns, ratios are taken within a round, and the table shows
the median of the rounds (the minimum for delays).

**throughput**: N members, one of which sends. `window` messages are in flight at any time: a new one is sent when every
member has received the oldest. The figure is deliveries per second of the server's CPU time, which changes little when
other processes use the core. With a window of 1 a server cannot batch; with 32 it can batch a lot.

**stall**: messages at a steady rate, and the latency from when each was due (not sent, so that a server that blocks
cannot hide it) until each member had received it; then again with one more member that has stopped reading.

Every byte received is compared with the expected one. A server that loses, repeats or reorders messages ends the run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

PREFIX = "Server received: "
MASK = bytes(4)  # masking with zeros changes nothing, so that the load need not mask
STALL_SIZE = 4096  # bytes of a text: the kernel buffers some megabytes for a stalled member before its writes block


# --- The servers: each starts on a free port and yields it ---


@contextlib.asynccontextmanager
async def chatlab_room() -> AsyncIterator[int]:
    """Run the robust room, with a lower limit on unread output than by default, so that a stalled member is closed."""
    from chatlab import room
    from chatlab.net.fanout import SlowReaderPolicy

    async with await room.start(policy=SlowReaderPolicy(max_buffered=1 << 18, drain_seconds=1)) as server:
        yield server.port


@contextlib.asynccontextmanager
async def article_room() -> AsyncIterator[int]:
    """Run the article's loop, which awaits `send()` for one session after another."""
    from chatlab import room

    async with await room.start_as_in_the_article() as server:
        yield server.port


@contextlib.asynccontextmanager
async def websockets_broadcast() -> AsyncIterator[int]:
    """Run a room on the library `websockets` and its `broadcast()`."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    members: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        members.add(connection)
        try:
            async for text in connection:
                broadcast(members, f"{PREFIX}{text!s}")
        finally:
            members.discard(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def aiohttp_send_str() -> AsyncIterator[int]:
    """Run the usual room on `aiohttp`, which awaits `send_str()` for one member after another."""
    from aiohttp import WSMsgType, web

    members: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(compress=False)
        await connection.prepare(request)
        members.add(connection)
        try:
            async for message in connection:
                if message.type == WSMsgType.TEXT:
                    for member in list(members):
                        with contextlib.suppress(ConnectionError):
                            await member.send_str(PREFIX + message.data)
        finally:
            members.discard(connection)
        return connection

    app = web.Application()
    app.router.add_get("/room", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


BASELINE = "websockets.broadcast()"
SERVERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[int]]] = {
    "chatlab room": chatlab_room,
    BASELINE: websockets_broadcast,
    "aiohttp send_str()": aiohttp_send_str,
    "the article's loop": article_room,
}


async def serve(name: str) -> None:
    """Run one server until stdin ends; for each line on stdin, print the CPU seconds used so far."""
    logging.disable()  # logging disconnects is not part of the measurement
    async with SERVERS[name]() as port:
        print(port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(time.process_time(), flush=True)
    os._exit(0)  # with a stalled member, some servers would take long to close


class Server:
    """The process of a server, pinned to the first core."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.room", "serve", name],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pin(self.process.pid, 0)
        self.port = int(self._read())

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server has used since it started."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(pid: int, core: int) -> None:
    """Pin a process to a core, if the system supports it and has two."""
    if len(CORES) > 1:
        os.sched_setaffinity(pid, {CORES[core]})


# --- The load ---


def header(first: int, length: int, mask_bit: int = 0) -> bytes:
    """Return the header of a frame (RFC 6455, section 5.2)."""
    if length < 126:
        return bytes((first, mask_bit | length))
    return bytes((first, mask_bit | 126)) + length.to_bytes(2)


class Messages:
    """Numbered texts of one size, as the sender sends them and as every member must receive them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.frame_size = len(self.received(0))

    def text(self, number: int) -> bytes:
        return b"%08d" % number + b"x" * (self.size - 8)

    def sent(self, number: int) -> bytes:
        return header(0x81, self.size, 0x80) + MASK + self.text(number)

    def received(self, number: int) -> bytes:
        text = PREFIX.encode() + self.text(number)
        return header(0x81, len(text)) + text


@dataclass
class Member:
    """One connection of the load. `received` counts bytes of messages."""

    sock: socket.socket
    received: int = 0


@dataclass
class Load:
    """Members, the first of which sends. `expected` has the frames that not every member has received yet."""

    port: int
    messages: Messages
    members: list[Member] = field(default_factory=list)
    sent: int = 0
    done: int = 0  # messages that every member has received
    expected: bytearray = field(default_factory=bytearray)
    arrived: Callable[[int, int, float], None] | None = None  # from message, to message, time

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.behind = 0  # members that have not received message `done` yet

    def join(self, count: int) -> None:
        """Connect `count` members."""
        for _ in range(count):
            sock = shake_hands(self.port)
            sock.setblocking(False)
            self.members.append(Member(sock))
            self.selector.register(sock, selectors.EVENT_READ, self.members[-1])
        self.behind = len(self.members)

    def say(self, count: int = 1) -> None:
        """Send the next `count` messages."""
        data = b"".join(self.messages.sent(n) for n in range(self.sent, self.sent + count))
        self.expected += b"".join(self.messages.received(n) for n in range(self.sent, self.sent + count))
        self.sent += count
        speaker = self.members[0].sock
        speaker.setblocking(True)
        speaker.sendall(data)
        speaker.setblocking(False)

    def receive(self, timeout: float | None) -> None:
        """Read from every member that has data; increase `done` once the last member has received a message."""
        for key, _ in self.selector.select(timeout):
            self._receive(key.data)
        while self.behind == 0 and self.done < self.sent:
            self.done += 1
            del self.expected[: self.messages.frame_size]
            have = (self.done + 1) * self.messages.frame_size
            self.behind = sum(member.received < have for member in self.members)

    def _receive(self, member: Member) -> None:
        data = member.sock.recv(1 << 18)
        size = self.messages.frame_size
        at = member.received - self.done * size
        if not data or data != self.expected[at : at + len(data)]:
            raise SystemExit(f"lost, repeated or out of order, after {member.received} bytes: {data[:60]!r}")
        before, after = member.received // size, (member.received + len(data)) // size
        member.received += len(data)
        if before == self.done < after:
            self.behind -= 1
        if self.arrived and after > before:
            self.arrived(before, after, time.perf_counter())

    def close(self) -> None:
        """Close every connection."""
        for member in self.members:
            member.sock.close()
        self.selector.close()


def shake_hands(port: int, receive_buffer: int | None = None, path: str = "/room") -> socket.socket:
    """Open a WebSocket connection without extensions."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


@contextlib.contextmanager
def load(server: Server, size: int, members: int) -> Iterator[Load]:
    """Connect `members` members to a server's room."""
    running = Load(server.port, Messages(size))
    try:
        running.join(members)
        yield running
    finally:
        running.close()


# --- The measurements ---


def throughput(server: Server, size: int, members: int, window: int, seconds: float) -> float:
    """Return deliveries per second of the server's CPU time, with `window` messages in flight."""
    with load(server, size, members) as room:
        for warming_up in (True, False):
            cpu, first, end = server.cpu_seconds(), room.done, time.perf_counter() + seconds / (4 if warming_up else 1)
            while time.perf_counter() < end:
                if room.sent < room.done + window:
                    room.say(room.done + window - room.sent)
                room.receive(10)
            while room.done < room.sent:
                room.receive(10)
        return (room.done - first) * members / (server.cpu_seconds() - cpu)


def latencies(server: Server, size: int, members: int, rate: float, seconds: float, *, stalled: bool) -> list[float]:
    """Return each delivery's milliseconds from when its message was due; inf if it never arrived."""
    times: list[float] = []
    with load(server, size, members) as room, contextlib.ExitStack() as stack:
        if stalled:
            stack.enter_context(contextlib.closing(shake_hands(server.port, receive_buffer=4096)))
        start = time.perf_counter() + 0.1
        room.arrived = lambda first, last, at: times.extend((at - start - n / rate) * 1000 for n in range(first, last))
        total = int(rate * seconds)
        while time.perf_counter() < start + seconds + 1 and room.done < total:
            due = min(total, int((time.perf_counter() - start) * rate) + 1)
            if room.sent < due:
                room.say(due - room.sent)
            room.receive(max(0.0, start + room.sent / rate - time.perf_counter()) if room.sent < total else 0.1)
    return times + [float("inf")] * (total * members - len(times))


def percentile(values: list[float], share: float) -> float:
    """Return the value that the given share of all values lies below."""
    return sorted(values)[int(share * (len(values) - 1))]


def report_throughput(args: argparse.Namespace, servers: dict[str, Server]) -> None:
    """Print one table per size, with one column per window."""
    for size in args.sizes:
        figures: dict[tuple[str, int], list[float]] = {(name, w): [] for name in servers for w in args.windows}
        for round_number in range(args.rounds):
            for name in rotated(list(servers), round_number):
                for window in args.windows:
                    figure = throughput(servers[name], size, args.members, window, args.seconds)
                    figures[name, window].append(figure)
                    print(f"  {size} B, window {window}, {name}: {figure:,.0f}", file=sys.stderr)
        print(f"\n**{args.members} members, {size}-byte texts**: deliveries per second of server CPU (and ratio)\n")
        print("| server | " + " | ".join(f"{w} in flight" for w in args.windows) + " |")
        print("|---|" + "---:|" * len(args.windows))
        for name in servers:
            cells = []
            for window in args.windows:
                mine, base = figures[name, window], figures[BASELINE, window]
                ratio = statistics.median(a / b for a, b in zip(mine, base, strict=True))
                cells.append(f"{statistics.median(mine):,.0f} ({ratio:.2f})")
            print(f"| {name} | " + " | ".join(cells) + " |")


def report_stall(args: argparse.Namespace, names: list[str]) -> None:
    """Print one row per server: the other members' latency without and with a member that has stopped reading."""
    title = f"{args.members} members, {STALL_SIZE}-byte texts, {args.rate:g} a second"
    print(f"\n**One more member that has stopped reading** ({title}): latency for the other members, ms\n")
    print("| server | p50 before | p50 with it | p99 before | p99 with it | p99, ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in names:
        rounds = []
        for _ in range(args.rounds):
            figures = []
            for stalled in (False, True):
                with Server(name) as server:  # a fresh one, so that no data of the stalled member is left
                    times = latencies(server, STALL_SIZE, args.members, args.rate, args.stall_seconds, stalled=stalled)
                figures += [percentile(times, 0.5), percentile(times, 0.99)]
                print(f"  {name}, stalled {stalled}: {figures[-2]:.2f} {figures[-1]:.2f} ms", file=sys.stderr)
            rounds.append(figures)
        # The minimum of the rounds, because other processes can only add latency.
        p50, p99, p50_stalled, p99_stalled = (min(column) for column in zip(*rounds, strict=True))
        figures = [p50, p50_stalled, p99, p99_stalled, p99_stalled / p99]
        print("| " + " | ".join([name, *map(shown, figures)]) + " |")


def shown(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.2f}"


def rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", nargs="?", choices=["all", "throughput", "stall", "serve"], default="all")
    parser.add_argument("server", nargs="?", help="the server to run, for serve")
    parser.add_argument("--servers", help="names, comma-separated (default: all)")
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--sizes", type=numbers, default=[64, 1024], help="bytes per text")
    parser.add_argument("--windows", type=numbers, default=[1, 4, 32], help="messages in flight")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per throughput measurement")
    parser.add_argument("--rate", type=float, default=200, help="messages per second, for stall")
    parser.add_argument("--stall-seconds", type=float, default=4.0)
    parser.add_argument("--quick", action="store_true", help="run one short round")
    args = parser.parse_args()
    if args.measurement == "serve":
        asyncio.run(serve(args.server))
        return
    if args.quick:
        args.rounds, args.seconds, args.stall_seconds = 1, 0.2, 1.0
    names = args.servers.split(",") if args.servers else list(SERVERS)
    names += [BASELINE] if BASELINE not in names else []
    pin(0, 1)
    if args.measurement in ("all", "throughput"):
        with contextlib.ExitStack() as stack:
            report_throughput(args, {name: stack.enter_context(Server(name)) for name in names})
    if args.measurement in ("all", "stall"):
        report_stall(args, names)


if __name__ == "__main__":
    main()
