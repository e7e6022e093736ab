"""Compare what the chat costs on several instances: `chatlab serve chat` processes on one Redis, on this machine.

    python -m benchmarks.cluster              all four, about five minutes
    python -m benchmarks.cluster --quick      one short round of each, to check that everything works
    python -m benchmarks.cluster latency --seconds 20 --chart benchmarks/latency.png
    python -m benchmarks.cluster rooms --instances 1,2,4,8
    python -m benchmarks.cluster instances --members 400
    python -m benchmarks.cluster members

**latency**: 100 messages per second, sent to one instance and received from another, from before the SEND is written
until the MESSAGE is read. In the same run, at the same rate: an XADD on one connection to the same Redis until a
blocking XREAD on another returns it, which is the minimum for any chat on Redis Streams; and two instances of the
article's second build, which polls every 100 ms.

**rooms**: rooms of two, whose members are on different instances of 1, 2 and 4, with some messages of each room in
flight at any time. The figures are those of `instances`. Most of the work is done by the instances here: receiving a
message, storing it, reading it back. An instance reads only the rooms of its own members.

**instances**: one large room, where most of the work is writing, and reading what was written. The same members are
spread over 1, 2 and 4 instances, with the same number of messages in flight, sent by one client at each instance. The
figures are deliveries per second on the cores that the instances share with Redis and the load; deliveries per second
of the busiest instance's CPU time, as instances on separate machines would reach them; and CPU time per delivery, part
of which is that every instance reads every message.

**members**: one instance with 100 members, then with 1,000: its CPU time per delivery.

Every byte that a member receives is compared with what the others received, on any instance, and the messages' numbers
with what was sent. Runs only on Linux, because CPU times are read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.room import MASK, header, numbers, percentile, rotated, shake_hands
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.cluster import Cluster

ROOM = "/topic/public"
CONTENT = re.compile(rb'"content":"(\d{8})x*"')
LIMIT_LATENCY, LIMIT_MEMBERS = 1.5, 1.2  # ms above Redis's own; ratio of the CPU times per delivery
PINGED = 25.0  # seconds that a connection is used: after 30 the server pings it, and its bytes differ from the others'


# --- A STOMP client in bytes ---


def text(data: bytes) -> bytes:
    """Return a WebSocket message as a client sends it."""
    return header(0x81, len(data), 0x80) + MASK + data


def connect(port: int) -> socket.socket:
    """Open a connection without heart-beats, and wait for CONNECTED."""
    sock = shake_hands(port, path="/ws")
    sock.sendall(text(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"))
    _read_until(sock, b"CONNECTED", b"\0")
    return sock


def subscribe(sock: socket.socket, destination: str = ROOM) -> None:
    """Subscribe to a room, and wait for the RECEIPT."""
    sock.sendall(text(f"SUBSCRIBE\nid:0\ndestination:{destination}\nreceipt:s\n\n\0".encode()))
    _read_until(sock, b"receipt-id:s", b"\0")


def sending(number: int, size: int, headers: str = "") -> bytes:
    """Return a SEND of a numbered text of `size` bytes."""
    content = b"%08d" % number + b"x" * (size - 8)
    return text(f"SEND\ndestination:/app/chat.sendMessage\n{headers}\n".encode() + b'{"content":"%s"}\0' % content)


def _read_until(sock: socket.socket, *parts: bytes) -> None:
    data = b""
    while not all(part in data for part in parts):
        received = sock.recv(4096)
        assert received, data
        data += received


# --- Latency ---


@dataclass
class Route:
    """One route of a message: how number n is sent, and on which socket the number arrives."""

    name: str
    send: Callable[[int], None]
    sock: socket.socket
    pattern: re.Pattern[bytes]
    on_data: Callable[[bytes], None] = lambda data: None  # called with the octets read, to ask for more
    sent: list[float] = field(default_factory=list)
    milliseconds: dict[int, float] = field(default_factory=dict)  # milliseconds
    _unparsed: bytes = b""

    def receive(self) -> None:
        """Read, and note when each number arrived."""
        data = self.sock.recv(1 << 16)
        now = time.perf_counter()
        assert data, f"{self.name}: closed"
        self._unparsed += data
        end = 0
        for match in self.pattern.finditer(self._unparsed):
            number, end = int(match[1]), match.end()
            assert number not in self.milliseconds, f"{self.name}: {number} arrived twice"
            self.milliseconds[number] = (now - self.sent[number]) * 1000
        self.on_data(self._unparsed)
        self._unparsed = self._unparsed[end:]


def chat_route(name: str, ports: Sequence[int], size: int) -> Route:
    """Return the route from the first instance to the second, with a RECEIPT for each message."""
    sender, receiver = connect(ports[0]), connect(ports[1])
    subscribe(receiver)

    def send(number: int) -> None:
        sender.sendall(sending(number, size, f"receipt:{number}\n"))
        with contextlib.suppress(BlockingIOError):
            sender.recv(1 << 16, socket.MSG_DONTWAIT)  # discard the RECEIPTs so far

    return Route(name, send, receiver, CONTENT)


def redis_route(url: str, size: int) -> Route:
    """Return the route from XADD on one connection to a blocking XREAD on another, with entries like the chat's."""
    port = int(url.rpartition(":")[2])
    sender, receiver = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    for sock in (sender, receiver):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(number: int) -> None:
        body = b'{"room":"public","sender":"guest-0000","content":"%08d%s","time":"%s"}'
        sender.sendall(
            command(
                b"XADD",
                b"raw",
                b"MAXLEN",
                b"~",
                b"100000",
                b"*",
                b"body",
                body % (number, b"x" * (size - 8), b"0" * 24),
            )
        )
        with contextlib.suppress(BlockingIOError):
            sender.recv(1 << 16, socket.MSG_DONTWAIT)

    def ask(data: bytes) -> None:
        if ids := re.findall(rb"\r\n(\d+-\d+)\r\n", data):
            receiver.sendall(command(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"raw", ids[-1]))

    receiver.sendall(command(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"raw", b"$"))
    return Route("Redis alone", send, receiver, CONTENT, ask)


def command(*parts: bytes) -> bytes:
    """Return a Redis command (RESP: an array of bulk strings)."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def measure_latencies(routes: Sequence[Route], rate: float, seconds: float) -> None:
    """Send on all routes at a steady rate, one after another; then wait for the last messages."""
    with selectors.DefaultSelector() as selector:
        for route in routes:
            selector.register(route.sock, selectors.EVENT_READ, route)
        step, total = 1 / rate / len(routes), int(rate * seconds) * len(routes)
        start, done = time.perf_counter() + 0.1, 0
        while done < total or time.perf_counter() < start + seconds + 1:
            now = time.perf_counter()
            if done < total and now >= start + done * step:
                route = routes[done % len(routes)]
                route.sent.append(time.perf_counter())
                route.send(len(route.sent) - 1)
                done += 1
                continue
            wait = start + done * step - now if done < total else 0.1
            for key, _ in selector.select(wait):
                key.data.receive()


async def report_latency(args: argparse.Namespace) -> None:
    """Print one row per route and whether the limit is kept; draw the chart."""
    async with await engines.start("redis") as redis, contextlib.AsyncExitStack() as stack:
        chatlab_cluster = await stack.enter_async_context(Cluster(redis.url, 2))
        # A separate database, because both chats use the same stream name.
        article_cluster = await stack.enter_async_context(
            Cluster(f"{redis.url}/1", 2, options=["--as-in-the-article", "second"])
        )
        await create_group(f"{redis.url}/1")
        article = "the article's poll"
        rounds: list[dict[str, list[float]]] = []
        sent = 0
        for _ in range(args.rounds):
            routes = [
                chat_route("chatlab", [instance.port for instance in chatlab_cluster.instances], args.size),
                redis_route(redis.url, args.size),
                chat_route(article, [instance.port for instance in article_cluster.instances], args.size),
            ]
            measure_latencies(routes, args.rate, min(args.seconds, PINGED - 5))
            for route in routes:
                route.sock.close()
                lost = len(route.sent) - len(route.milliseconds)
                assert not lost or route.name == article, f"{route.name} lost {lost}"
            rounds.append({route.name: list(route.milliseconds.values()) for route in routes})
            sent += len(routes[2].sent)
    print(f"\n**Latency through two instances**, {args.rate:g} messages per second, {args.size}-byte texts, ms\n")
    print("| | median | 99th percentile | arrived |")
    print("|---|---:|---:|---:|")
    medians = {}
    for name in rounds[0]:
        medians[name] = statistics.median(statistics.median(each[name]) for each in rounds)
        arrived = sum(len(each[name]) for each in rounds)
        p99 = statistics.median(percentile(each[name], 0.99) for each in rounds)
        print(f"| {name} | {medians[name]:.2f} | {p99:.2f} | {arrived / sent:.0%} |")
    added = statistics.median(
        statistics.median(each["chatlab"]) - statistics.median(each["Redis alone"]) for each in rounds
    )
    print(f"\nThe chat adds {added:.2f} ms to Redis's own {medians['Redis alone']:.2f} ms", end=" ")
    print(f"(limit {LIMIT_LATENCY} ms): {'kept' if added <= LIMIT_LATENCY else 'EXCEEDED'}")
    if args.chart:
        draw_latencies(rounds, args.chart)


async def create_group(url: str) -> None:
    """Create the consumer group, which the article forgets (F3)."""
    from redis.asyncio import Redis

    async with Redis.from_url(url) as client:
        await client.xgroup_create("chat-stream", "group", mkstream=True)


def draw_latencies(rounds: Sequence[dict[str, list[float]]], path: Path) -> None:
    """Draw the share of the messages that had arrived after each time, over all rounds."""
    import matplotlib

    matplotlib.use("Agg")  # draw without a window
    from chatlab.lab.experiments.charts import chart

    figure, axes = chart("From one instance to the other", "milliseconds", "share of the messages that arrived")
    for name, style in zip(rounds[0], ("-", "--", ":"), strict=True):
        milliseconds = sorted(latency for each in rounds for latency in each[name])
        shares = [(n + 1) / len(milliseconds) for n in range(len(milliseconds))]
        axes.plot(milliseconds, shares, style, label=name, linewidth=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


# --- Throughput ---

NUMBERS_PER_SENDER = 10_000_000  # message numbers available to each sender


class Crowd:
    """Members on one instance, which must all receive the same bytes, and one client there that sends."""

    def __init__(self, sender: int, port: int, size: int, members: int) -> None:
        self.sent = 0
        self._sender_number, self._size = sender, size
        self._selector = selectors.DefaultSelector()
        self._socks = [connect(port) for _ in range(members)]
        for member, sock in enumerate(self._socks):
            subscribe(sock)
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, member)
        self._sender = connect(port)
        self._received = [0] * members  # bytes
        self._stream = bytearray()  # the longest stream that any member has received
        self._ends: list[int] = []  # where each of its messages ends
        self._own_messages: list[int] = []  # which of the messages this sender sent
        self._done = 0  # messages that all members have received
        self._own_done = 0
        self._next: dict[int, int] = {}  # by sender: the number expected next

    def send(self, window: int, seconds: float) -> None:
        """Keep `window` messages of this sender in flight for `seconds`."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(window - (self.sent - self._own_done)):
                self._sender.sendall(sending(self._sender_number * NUMBERS_PER_SENDER + self.sent, self._size))
                self.sent += 1
            self._receive()

    def wait_for(self, total: int) -> None:
        """Wait until every member has received `total` messages."""
        while self._done < total:
            self._receive()

    def close(self) -> str:
        """Disconnect; return the digest of what every member has received."""
        for sock in (*self._socks, self._sender):
            sock.close()
        self._selector.close()
        return hashlib.sha256(self._stream).hexdigest()

    def _receive(self) -> None:
        ready = self._selector.select(10)
        assert ready, f"{self.sent - self._own_done} messages did not arrive within 10 s"
        for key, _ in ready:
            self._receive_one(key.data)
        self._find_messages()
        least = min(self._received)
        while self._done < len(self._ends) and self._ends[self._done] < least:
            self._done += 1
        while self._own_done < len(self._own_messages) and self._own_messages[self._own_done] < self._done:
            self._own_done += 1

    def _receive_one(self, member: int) -> None:
        data = self._socks[member].recv(1 << 18)
        at = self._received[member]
        self._received[member] = at + len(data)
        known = self._stream[at : at + len(data)]
        if not data or data[: len(known)] != known:
            raise SystemExit(f"member {member} received other bytes than the rest, after {at} bytes: {data[:80]!r}")
        self._stream += data[len(known) :]

    def _find_messages(self) -> None:
        """Find complete messages; each sender's must arrive once, and in the order in which they were sent."""
        begin = self._ends[-1] + 1 if self._ends else 0
        while (end := self._stream.find(b"\0", begin)) >= 0:
            match = CONTENT.search(self._stream, begin, end)
            assert match, bytes(self._stream[begin:end])
            sender, number = divmod(int(match[1]), NUMBERS_PER_SENDER)
            assert number == self._next.get(sender, 0), f"{number} of sender {sender} is lost, repeated or late"
            self._next[sender] = number + 1
            if sender == self._sender_number:
                self._own_messages.append(len(self._ends))
            self._ends.append(end)
            begin = end + 1


def crowd(pipe: Connection, sender: int, port: int, size: int, members: int) -> None:
    """Run one crowd in this process, which follows the commands in the pipe."""
    members_here = Crowd(sender, port, size, members)
    pipe.send("ready")
    while task := pipe.recv():
        members_here.send(*task)
        pipe.send(members_here.sent)
        members_here.wait_for(pipe.recv())
        pipe.send(time.perf_counter())
    pipe.send(members_here.close())


@contextlib.contextmanager
def crowds(ports: Sequence[int], size: int, members: int) -> Iterator[list[Connection]]:
    """Run a crowd for each instance, each in its own process: one could not keep several instances busy."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for sender, port in enumerate(ports):
        parent, child = context.Pipe()
        arguments = (child, sender, port, size, members // len(ports))
        context.Process(target=crowd, args=arguments, daemon=True).start()
        child.close()  # so that the end of the process ends the pipe
        pipes.append(parent)
    assert all(pipe.recv() == "ready" for pipe in pipes)
    yield pipes
    for pipe in pipes:
        pipe.send(None)
    assert len({pipe.recv() for pipe in pipes}) == 1, "the instances did not all send the same bytes"


def run(pipes: Sequence[Connection], window: int, seconds: float) -> tuple[int, float]:
    """Run the crowds for `seconds`; return how many messages were sent so far, and when the last one arrived."""
    for pipe in pipes:
        pipe.send((window, seconds))
    total = sum(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.send(total)
    return total, max(pipe.recv() for pipe in pipes)


# --- Many rooms ---

READ_INTERVAL = 0.002  # seconds between two reads: the load must cost little compared with the instances


class SmallRoom:
    """One room: its members' connections, and what they have received. The first member sends."""

    def __init__(self, name: str, ports: Sequence[int], size: int) -> None:
        self.sent = 0
        self.done = 0  # messages that all members have received
        self._start = b"SEND\ndestination:/app/chat.sendMessage\n\n" + b'{"room":"%s","content":"' % name.encode()
        self._end = b"x" * (size - 8) + b'"}\0'
        self.socks = [connect(port) for port in ports]
        for sock in self.socks:
            subscribe(sock, f"/topic/room.{name}")
            sock.setblocking(False)
        self._received = [0] * len(ports)  # bytes, by member
        self._stream = bytearray()  # the longest stream that any member has received, from the last whole message on
        self._left = 0  # bytes dropped from the stream because all members had them

    def send(self, window: int) -> None:
        """Send messages until `window` of them are in flight."""
        numbers = range(self.sent, self.done + window)
        if numbers:
            self.socks[0].sendall(b"".join([text(self._start + b"%08d" % n + self._end) for n in numbers]))
            self.sent = numbers.stop

    def receive(self, member: int) -> None:
        """Read for one member; it must receive the same bytes as the others."""
        data = self.socks[member].recv(1 << 18)
        at = self._received[member] - self._left
        known = self._stream[at : at + len(data)]
        if not data or data[: len(known)] != known:
            raise SystemExit(f"member {member} received other bytes than the rest: {data[:80]!r}")
        self._stream += data[len(known) :]
        self._received[member] += len(data)

    def count(self) -> None:
        """Count the messages that all members have received; they must be in the order of sending."""
        seen = min(self._received) - self._left
        end = self._stream.rfind(b"\0", 0, seen) + 1
        for match in CONTENT.finditer(self._stream, 0, end):
            assert int(match[1]) == self.done, f"{match[1]!r} instead of {self.done}: lost, repeated or out of order"
            self.done += 1
        del self._stream[:end]
        self._left += end


class SmallRooms:
    """All the rooms, in one process."""

    def __init__(self, ports: Sequence[int], rooms: int, members: int, size: int) -> None:
        count = len(ports)
        member_ports = [[ports[(room + member) % count] for member in range(members)] for room in range(rooms)]
        self._rooms = [SmallRoom(f"r{room}", each, size) for room, each in enumerate(member_ports)]
        self._members = members
        self._selector = selectors.DefaultSelector()
        for room in self._rooms:
            for member, sock in enumerate(room.socks):
                self._selector.register(sock, selectors.EVENT_READ, (room, member))

    def run(self, window: int, seconds: float) -> int:
        """Keep `window` messages of each room in flight for `seconds`, wait for the last, and return the deliveries."""
        before = sum(room.done for room in self._rooms)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for room in self._rooms:
                room.send(window)
            self._receive()
        while any(room.done < room.sent for room in self._rooms):
            self._receive()
        return (sum(room.done for room in self._rooms) - before) * self._members

    def close(self) -> None:
        """Disconnect."""
        self._selector.close()
        for room in self._rooms:
            for sock in room.socks:
                sock.close()

    def _receive(self) -> None:
        time.sleep(READ_INTERVAL)
        ready = self._selector.select(10)
        assert ready, "nothing arrived for 10 s"
        for key, _ in ready:
            room, member = key.data
            room.receive(member)
        for room in {id(key.data[0]): key.data[0] for key, _ in ready}.values():
            room.count()


def small_rooms(cluster: Cluster, args: argparse.Namespace) -> Figures:
    """Measure deliveries in many rooms, after a warm-up."""
    pids = [instance.pid for instance in cluster.instances if instance.pid is not None]
    load = SmallRooms([instance.port for instance in cluster.instances], args.rooms, args.room_members, args.size)
    load.run(args.each_in_flight, args.seconds / 10)
    before, started = [cpu_seconds(pid) for pid in pids], time.perf_counter()
    records = load.run(args.each_in_flight, args.seconds / 5)
    elapsed = time.perf_counter() - started
    used = [cpu_seconds(pid) - first for pid, first in zip(pids, before, strict=True)]
    load.close()
    return Figures(records / elapsed, records / max(used), sum(used) / records * 1e6)


@dataclass(frozen=True)
class Figures:
    """The results of one measurement."""

    per_second: float  # deliveries per second
    per_cpu_second: float  # deliveries per CPU second of the busiest instance
    micros: float  # CPU microseconds per delivery, of all instances together


def throughput(cluster: Cluster, members: int, size: int, window: int, seconds: float) -> Figures:
    """Measure deliveries with `window` messages of each sender in flight, after a warm-up."""
    pids = [instance.pid for instance in cluster.instances if instance.pid is not None]
    with crowds([instance.port for instance in cluster.instances], size, members) as pipes:
        first, started = run(pipes, window, seconds / 2)
        before = [cpu_seconds(pid) for pid in pids]
        last, ended = run(pipes, window, seconds)
        used = [cpu_seconds(pid) - first for pid, first in zip(pids, before, strict=True)]
    records = (last - first) * members
    return Figures(records / (ended - started), records / max(used), sum(used) / records * 1e6)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of a process have used."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


@contextlib.asynccontextmanager
async def clusters(counts: Sequence[int]) -> AsyncIterator[dict[int, Cluster]]:
    """Run a separate cluster on a separate Redis for each count; only one at a time is under load."""
    async with contextlib.AsyncExitStack() as stack:
        running = {}
        for count in counts:
            redis = await stack.enter_async_context(await engines.start("redis"))
            running[count] = await stack.enter_async_context(Cluster(redis.url, count))
        yield running


async def report_rooms(args: argparse.Namespace) -> None:
    """Compare numbers of instances with many small rooms."""
    title = f"{args.rooms} rooms of {args.room_members} members, {args.each_in_flight} messages of each in flight"
    await compare_instances(args, title, lambda cluster, count: small_rooms(cluster, args))


async def report_instances(args: argparse.Namespace) -> None:
    """Compare numbers of instances with one large room."""
    title = f"One room of {args.members} members, {args.in_flight} messages in flight"

    def measure(cluster: Cluster, count: int) -> Figures:
        return throughput(cluster, args.members, args.size, args.in_flight // count, args.seconds / 5)

    await compare_instances(args, title, measure)


async def compare_instances(args: argparse.Namespace, title: str, measure: Callable[[Cluster, int], Figures]) -> None:
    """Print one row per number of instances."""
    figures: dict[int, list[Figures]] = {count: [] for count in args.instances}
    async with clusters(args.instances) as running:
        for round_number in range(args.rounds):
            for count in map(int, rotated([str(count) for count in args.instances], round_number)):
                figures[count].append(measured := measure(running[count], count))
                print(f"  {count} instances: {measured}", file=sys.stderr)
    title += f", {args.size}-byte texts"
    print(f"\n**{title}**, {os.cpu_count()} cores\n")
    print("| instances | deliveries per second | per CPU second of the busiest instance | CPU µs per delivery |")
    print("|---:|---:|---:|---:|")
    base = figures[args.instances[0]]
    for count, results in figures.items():
        # The maximum of the rounds, because other processes can only lower it.
        most, base_most = (max(each.per_second for each in rounds) for rounds in (results, base))
        each_cpu = statistics.median(each.per_cpu_second for each in results)
        ratio = statistics.median(a.per_cpu_second / b.per_cpu_second for a, b in zip(results, base, strict=True))
        cells = [f"{most:,.0f} ({most / base_most:.2f})", f"{each_cpu:,.0f} ({ratio:.2f})"]
        cells.append(f"{statistics.median(each.micros for each in results):.2f}")
        print(f"| {count} | " + " | ".join(cells) + " |")


async def report_members(args: argparse.Namespace) -> None:
    """Print one row per window: CPU time per delivery with few members and with many."""
    few, many = 100, 1000
    async with clusters([1]) as running:
        print(f"\n**One instance, {args.size}-byte texts**: CPU time per delivery, µs\n")
        print(f"| in flight | {few} members | {many:,} members | ratio |")
        print("|---:|---:|---:|---:|")
        for window in args.windows:
            results: dict[int, list[float]] = {few: [], many: []}
            for round_number in range(args.rounds):
                for members in (few, many) if round_number % 2 else (many, few):
                    seconds = args.seconds / 5
                    results[members].append(throughput(running[1], members, args.size, window, seconds).micros)
            ratio = statistics.median(b / a for a, b in zip(results[few], results[many], strict=True))
            a, b = (statistics.median(each) for each in results.values())
            verdict = "kept" if ratio <= LIMIT_MEMBERS else f"EXCEEDED (limit {LIMIT_MEMBERS})"
            print(f"| {window} | {a:.2f} | {b:.2f} | {ratio:.2f} {verdict} |")


REPORTS = {
    "latency": report_latency,
    "rooms": report_rooms,
    "instances": report_instances,
    "members": report_members,
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", nargs="?", choices=["all", *REPORTS], default="all")
    parser.add_argument("--rate", type=float, default=100, help="messages per second, for latency")
    parser.add_argument("--seconds", type=float, default=10, help="per round of latency; the others take a fifth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="bytes per text")
    parser.add_argument("--members", type=int, default=400, help="for instances")
    parser.add_argument("--instances", type=numbers, default=[1, 2, 4], help="for rooms and instances")
    parser.add_argument("--rooms", type=int, default=256)
    parser.add_argument("--room-members", type=int, default=2)
    parser.add_argument("--each-in-flight", type=int, default=8, help="messages in flight per room, for rooms")
    parser.add_argument("--in-flight", type=int, default=128, help="messages in flight, for instances")
    parser.add_argument("--windows", type=numbers, default=[1, 32], help="messages in flight, for members")
    parser.add_argument("--chart", type=Path, help="file to write the chart of latency to")
    parser.add_argument("--quick", action="store_true", help="run one short round")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 2.0
    for name, report in REPORTS.items():
        if args.measurement in ("all", name):
            await report(args)


if __name__ == "__main__":
    asyncio.run(main())
