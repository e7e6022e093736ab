"""What the chat costs once it has several instances: `chatlab serve chat` as processes, on one Redis, on this machine.

    python -m benchmarks.cluster              all four, some five minutes
    python -m benchmarks.cluster --quick      one short round of each, to see that it works
    python -m benchmarks.cluster delay --seconds 20 --chart benchmarks/delay.png
    python -m benchmarks.cluster rooms --instances 1,2,4,8
    python -m benchmarks.cluster instances --members 400
    python -m benchmarks.cluster members

**delay**: 100 messages a second, sent to one instance and received from another, from before the SEND is written until
the MESSAGE is read. In the same run, at the same rate: an XADD on one connection to the same Redis until a blocking
XREAD on another has it, which is the least that any chat on Redis Streams can take; and two instances of the article's
second build, which polls every 100 ms.

**rooms**: conversations of two, their members on different ones of 1, 2 and 4 instances, and some messages of each
under way at any time. Counted is the same as for `instances`. Most of the work is the instances' here: taking a
message, storing it, reading it again; and an instance reads only the rooms that it has members in.

**instances**: one large room, where most of the work is writing, and reading what was written. The same members,
spread over 1, 2 and 4 instances, and as many messages under way at any time, sent by one speaker at each instance.
Counted are deliveries a second on the cores there are, which the instances share with Redis and with the load;
deliveries for each second of the busiest instance's CPU, which is what instances on machines of their own would bring;
and CPU time for each delivery, of which a part is that every instance reads all.

**members**: one instance with 100 members, then with 1,000: its CPU time for each delivery.

Every byte that a member receives is compared with what the others received, on whichever instance, and the messages'
numbers with what was sent. Linux only, for CPU times are read from /proc.
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
LIMIT_DELAY, LIMIT_MEMBERS = 1.5, 1.2  # ms above Redis's own; times the CPU for a delivery
PINGED = 25.0  # seconds a connection may be used: after 30 the server pings it, and its bytes differ from the others'


# --- A STOMP client in bytes ---


def text(data: bytes) -> bytes:
    """One WebSocket message from a client."""
    return header(0x81, len(data), 0x80) + MASK + data


def connect(port: int) -> socket.socket:
    """A connection that has been CONNECTED, without heart-beats."""
    sock = shake_hands(port, path="/ws")
    sock.sendall(text(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"))
    _read_until(sock, b"CONNECTED", b"\0")
    return sock


def subscribe(sock: socket.socket, destination: str = ROOM) -> None:
    """Subscribe to a room, and know that it has begun."""
    sock.sendall(text(f"SUBSCRIBE\nid:0\ndestination:{destination}\nreceipt:s\n\n\0".encode()))
    _read_until(sock, b"receipt-id:s", b"\0")


def sending(number: int, size: int, headers: str = "") -> bytes:
    """A SEND of a numbered text of `size` bytes."""
    content = b"%08d" % number + b"x" * (size - 8)
    return text(f"SEND\ndestination:/app/chat.sendMessage\n{headers}\n".encode() + b'{"content":"%s"}\0' % content)


def _read_until(sock: socket.socket, *parts: bytes) -> None:
    data = b""
    while not all(part in data for part in parts):
        more = sock.recv(4096)
        assert more, data
        data += more


# --- Delay ---


@dataclass
class Way:
    """One way for a message to take: how number n is sent, and where its number comes out."""

    name: str
    send: Callable[[int], None]
    sock: socket.socket
    pattern: re.Pattern[bytes]
    heard: Callable[[bytes], None] = lambda data: None  # called with what was read, to ask for more
    sent: list[float] = field(default_factory=list)
    taken: dict[int, float] = field(default_factory=dict)  # milliseconds
    _rest: bytes = b""

    def receive(self) -> None:
        """Take what has arrived."""
        data = self.sock.recv(1 << 16)
        now = time.perf_counter()
        assert data, f"{self.name}: closed"
        self._rest += data
        end = 0
        for match in self.pattern.finditer(self._rest):
            number, end = int(match[1]), match.end()
            assert number not in self.taken, f"{self.name}: {number} came twice"
            self.taken[number] = (now - self.sent[number]) * 1000
        self.heard(self._rest)
        self._rest = self._rest[end:]


def chat_way(name: str, ports: Sequence[int], size: int) -> Way:
    """From the first instance to the second, with a RECEIPT as a careful client asks for it."""
    sender, receiver = connect(ports[0]), connect(ports[1])
    subscribe(receiver)

    def send(number: int) -> None:
        sender.sendall(sending(number, size, f"receipt:{number}\n"))
        with contextlib.suppress(BlockingIOError):
            sender.recv(1 << 16, socket.MSG_DONTWAIT)  # the RECEIPTs so far

    return Way(name, send, receiver, CONTENT)


def redis_way(url: str, size: int) -> Way:
    """XADD on one connection, a blocking XREAD on another; the entry is as long as the chat's."""
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
    return Way("Redis alone", send, receiver, CONTENT, ask)


def command(*parts: bytes) -> bytes:
    """A command as Redis takes it (RESP: an array of bulk strings)."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def measure_delays(ways: Sequence[Way], rate: float, seconds: float) -> None:
    """Send on all ways at a steady rate, each a little after the one before; then wait for the last."""
    with selectors.DefaultSelector() as selector:
        for way in ways:
            selector.register(way.sock, selectors.EVENT_READ, way)
        step, total = 1 / rate / len(ways), int(rate * seconds) * len(ways)
        start, done = time.perf_counter() + 0.1, 0
        while done < total or time.perf_counter() < start + seconds + 1:
            now = time.perf_counter()
            if done < total and now >= start + done * step:
                way = ways[done % len(ways)]
                way.sent.append(time.perf_counter())
                way.send(len(way.sent) - 1)
                done += 1
                continue
            wait = start + done * step - now if done < total else 0.1
            for key, _ in selector.select(wait):
                key.data.receive()


async def report_delay(args: argparse.Namespace) -> None:
    """One row for each way, the verdict, and the chart."""
    async with await engines.start("redis") as redis, contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Cluster(redis.url, 2))
        # A database of its own, for both chats call their stream the same; and the group that nobody would create.
        others = await stack.enter_async_context(
            Cluster(f"{redis.url}/1", 2, options=["--as-in-the-article", "second"])
        )
        await create_group(f"{redis.url}/1")
        article = "the article's poll"
        rounds: list[dict[str, list[float]]] = []
        sent = 0
        for _ in range(args.rounds):
            ways = [
                chat_way("chatlab", [instance.port for instance in ours.instances], args.size),
                redis_way(redis.url, args.size),
                chat_way(article, [instance.port for instance in others.instances], args.size),
            ]
            measure_delays(ways, args.rate, min(args.seconds, PINGED - 5))
            for way in ways:
                way.sock.close()
                lost = len(way.sent) - len(way.taken)
                assert not lost or way.name == article, f"{way.name} lost {lost}"
            rounds.append({way.name: list(way.taken.values()) for way in ways})
            sent += len(ways[2].sent)
    print(f"\n**Delay through two instances**, {args.rate:g} messages a second, {args.size}-byte texts, ms\n")
    print("| | median | 99 of 100 within | arrived |")
    print("|---|---:|---:|---:|")
    medians = {}
    for name in rounds[0]:
        medians[name] = statistics.median(statistics.median(each[name]) for each in rounds)
        arrived = sum(len(each[name]) for each in rounds)
        p99 = statistics.median(percentile(each[name], 0.99) for each in rounds)
        print(f"| {name} | {medians[name]:.2f} | {p99:.2f} | {arrived / sent:.0%} |")
    more = statistics.median(
        statistics.median(each["chatlab"]) - statistics.median(each["Redis alone"]) for each in rounds
    )
    print(f"\nThe chat adds {more:.2f} ms to Redis's own {medians['Redis alone']:.2f} ms", end=" ")
    print(f"(limit {LIMIT_DELAY} ms): {'holds' if more <= LIMIT_DELAY else 'DOES NOT HOLD'}")
    if args.chart:
        draw_delays(rounds, args.chart)


async def create_group(url: str) -> None:
    """What the article forgets (F3)."""
    from redis.asyncio import Redis

    async with Redis.from_url(url) as client:
        await client.xgroup_create("chat-stream", "group", mkstream=True)


def draw_delays(rounds: Sequence[dict[str, list[float]]], path: Path) -> None:
    """Which share of the messages had arrived after how long, of all rounds together."""
    import matplotlib

    matplotlib.use("Agg")  # no window
    from chatlab.lab.experiments.charts import chart

    figure, axes = chart("From one instance to the other", "milliseconds", "share, of those that came")
    for name, style in zip(rounds[0], ("-", "--", ":"), strict=True):
        taken = sorted(delay for each in rounds for delay in each[name])
        axes.plot(taken, [(n + 1) / len(taken) for n in range(len(taken))], style, label=name, linewidth=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


# --- Throughput ---

SPEAKERS = 10_000_000  # numbers that each speaker has for its messages


class Crowd:
    """Members of one instance, who must all receive the same bytes, and one speaker there."""

    def __init__(self, speaker: int, port: int, size: int, members: int) -> None:
        self.sent = 0
        self._speaker, self._size = speaker, size
        self._selector = selectors.DefaultSelector()
        self._socks = [connect(port) for _ in range(members)]
        for member, sock in enumerate(self._socks):
            subscribe(sock)
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, member)
        self._voice = connect(port)
        self._received = [0] * members  # bytes
        self._stream = bytearray()  # what the first to receive it has received
        self._ends: list[int] = []  # of the messages in it
        self._own: list[int] = []  # which of them are our speaker's
        self._done = 0  # messages that all members have
        self._own_done = 0
        self._next: dict[int, int] = {}  # by speaker: the number its next message must have

    def speak(self, window: int, seconds: float) -> None:
        """Keep `window` messages of our own under way, for so long."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(window - (self.sent - self._own_done)):
                self._voice.sendall(sending(self._speaker * SPEAKERS + self.sent, self._size))
                self.sent += 1
            self._receive()

    def listen(self, total: int) -> None:
        """Wait until every member has as many messages."""
        while self._done < total:
            self._receive()

    def close(self) -> str:
        """Leave; the digest of what everybody has received."""
        for sock in (*self._socks, self._voice):
            sock.close()
        self._selector.close()
        return hashlib.sha256(self._stream).hexdigest()

    def _receive(self) -> None:
        ready = self._selector.select(10)
        assert ready, f"{self.sent - self._own_done} messages did not come within 10 s"
        for key, _ in ready:
            self._receive_one(key.data)
        self._find_messages()
        least = min(self._received)
        while self._done < len(self._ends) and self._ends[self._done] < least:
            self._done += 1
        while self._own_done < len(self._own) and self._own[self._own_done] < self._done:
            self._own_done += 1

    def _receive_one(self, member: int) -> None:
        data = self._socks[member].recv(1 << 18)
        at = self._received[member]
        self._received[member] = at + len(data)
        known = self._stream[at : at + len(data)]
        if not data or data[: len(known)] != known:
            raise SystemExit(f"member {member} received what others did not, after {at} bytes: {data[:80]!r}")
        self._stream += data[len(known) :]

    def _find_messages(self) -> None:
        """Each speaker's messages must come once, and in the order in which it sent them."""
        begin = self._ends[-1] + 1 if self._ends else 0
        while (end := self._stream.find(b"\0", begin)) >= 0:
            match = CONTENT.search(self._stream, begin, end)
            assert match, bytes(self._stream[begin:end])
            speaker, number = divmod(int(match[1]), SPEAKERS)
            assert number == self._next.get(speaker, 0), f"{number} of speaker {speaker} is lost, repeated or late"
            self._next[speaker] = number + 1
            if speaker == self._speaker:
                self._own.append(len(self._ends))
            self._ends.append(end)
            begin = end + 1


def crowd(pipe: Connection, speaker: int, port: int, size: int, members: int) -> None:
    """A process with one crowd, which does what it is told through the pipe."""
    here = Crowd(speaker, port, size, members)
    pipe.send("ready")
    while task := pipe.recv():
        here.speak(*task)
        pipe.send(here.sent)
        here.listen(pipe.recv())
        pipe.send(time.perf_counter())
    pipe.send(here.close())


@contextlib.contextmanager
def crowds(ports: Sequence[int], size: int, members: int) -> Iterator[list[Connection]]:
    """A crowd for each instance, in a process of its own: one alone could not keep several instances busy."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for speaker, port in enumerate(ports):
        ours, theirs = context.Pipe()
        arguments = (theirs, speaker, port, size, members // len(ports))
        context.Process(target=crowd, args=arguments, daemon=True).start()
        theirs.close()  # so that we are told of its end
        pipes.append(ours)
    assert all(pipe.recv() == "ready" for pipe in pipes)
    yield pipes
    for pipe in pipes:
        pipe.send(None)
    assert len({pipe.recv() for pipe in pipes}) == 1, "the instances did not all send the same bytes"


def run(pipes: Sequence[Connection], window: int, seconds: float) -> tuple[int, float]:
    """Have the crowds keep their messages under way for so long; when the last has come: how many so far, and when."""
    for pipe in pipes:
        pipe.send((window, seconds))
    total = sum(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.send(total)
    return total, max(pipe.recv() for pipe in pipes)


# --- Many rooms ---

LOOK_EVERY = 0.002  # seconds between two looks at what has come: the load is to cost little beside the instances


class SmallRoom:
    """One room: its members' connections, and what they received. The first of them speaks."""

    def __init__(self, name: str, ports: Sequence[int], size: int) -> None:
        self.sent = 0
        self.done = 0  # messages that all members have
        self._start = b"SEND\ndestination:/app/chat.sendMessage\n\n" + b'{"room":"%s","content":"' % name.encode()
        self._end = b"x" * (size - 8) + b'"}\0'
        self.socks = [connect(port) for port in ports]
        for sock in self.socks:
            subscribe(sock, f"/topic/room.{name}")
            sock.setblocking(False)
        self._received = [0] * len(ports)  # bytes, by member
        self._stream = bytearray()  # what the first to receive it has received, from the last whole message on
        self._left = 0  # bytes of the stream that were dropped because everybody had them

    def speak(self, window: int) -> None:
        """Send as many messages as are missing to have `window` of them under way."""
        numbers = range(self.sent, self.done + window)
        if numbers:
            self.socks[0].sendall(b"".join([text(self._start + b"%08d" % n + self._end) for n in numbers]))
            self.sent = numbers.stop

    def receive(self, member: int) -> None:
        """Take what has come for one member: the same bytes as for all, the messages in the order of sending."""
        data = self.socks[member].recv(1 << 18)
        at = self._received[member] - self._left
        known = self._stream[at : at + len(data)]
        if not data or data[: len(known)] != known:
            raise SystemExit(f"member {member} received what others did not: {data[:80]!r}")
        self._stream += data[len(known) :]
        self._received[member] += len(data)

    def count(self) -> None:
        """Count the messages that all members have by now."""
        seen = min(self._received) - self._left
        end = self._stream.rfind(b"\0", 0, seen) + 1
        for match in CONTENT.finditer(self._stream, 0, end):
            assert int(match[1]) == self.done, f"{match[1]!r} instead of {self.done}: lost, repeated or out of order"
            self.done += 1
        del self._stream[:end]
        self._left += end


class SmallRooms:
    """All rooms, in one process."""

    def __init__(self, ports: Sequence[int], rooms: int, members: int, size: int) -> None:
        count = len(ports)
        places = [[ports[(room + member) % count] for member in range(members)] for room in range(rooms)]
        self._rooms = [SmallRoom(f"r{number}", where, size) for number, where in enumerate(places)]
        self._members = members
        self._selector = selectors.DefaultSelector()
        for room in self._rooms:
            for member, sock in enumerate(room.socks):
                self._selector.register(sock, selectors.EVENT_READ, (room, member))

    def run(self, window: int, seconds: float) -> int:
        """Keep `window` messages of each room under way for so long, then wait for the last; deliveries made."""
        before = sum(room.done for room in self._rooms)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for room in self._rooms:
                room.speak(window)
            self._receive()
        while any(room.done < room.sent for room in self._rooms):
            self._receive()
        return (sum(room.done for room in self._rooms) - before) * self._members

    def close(self) -> None:
        """Leave."""
        self._selector.close()
        for room in self._rooms:
            for sock in room.socks:
                sock.close()

    def _receive(self) -> None:
        time.sleep(LOOK_EVERY)
        ready = self._selector.select(10)
        assert ready, "nothing came for 10 s"
        for key, _ in ready:
            room, member = key.data
            room.receive(member)
        for room in {id(key.data[0]): key.data[0] for key, _ in ready}.values():
            room.count()


def small_rooms(cluster: Cluster, args: argparse.Namespace) -> Figures:
    """Deliveries in many rooms, after a warm-up."""
    pids = [instance.pid for instance in cluster.instances if instance.pid is not None]
    load = SmallRooms([instance.port for instance in cluster.instances], args.rooms, args.room_members, args.size)
    load.run(args.each_under_way, args.seconds / 10)
    before, started = [cpu_seconds(pid) for pid in pids], time.perf_counter()
    records = load.run(args.each_under_way, args.seconds / 5)
    elapsed = time.perf_counter() - started
    used = [cpu_seconds(pid) - first for pid, first in zip(pids, before, strict=True)]
    load.close()
    return Figures(records / elapsed, records / max(used), sum(used) / records * 1e6)


@dataclass(frozen=True)
class Figures:
    """What one measurement gave."""

    per_second: float  # deliveries
    per_cpu_second: float  # of the busiest instance
    micros: float  # of CPU for one delivery, all instances together


def throughput(cluster: Cluster, members: int, size: int, window: int, seconds: float) -> Figures:
    """Deliveries with `window` messages of each speaker under way, after a warm-up."""
    pids = [instance.pid for instance in cluster.instances if instance.pid is not None]
    with crowds([instance.port for instance in cluster.instances], size, members) as pipes:
        first, started = run(pipes, window, seconds / 2)
        before = [cpu_seconds(pid) for pid in pids]
        last, ended = run(pipes, window, seconds)
        used = [cpu_seconds(pid) - first for pid, first in zip(pids, before, strict=True)]
    records = (last - first) * members
    return Figures(records / (ended - started), records / max(used), sum(used) / records * 1e6)


def cpu_seconds(pid: int) -> float:
    """CPU time that all threads of a process have used."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


@contextlib.asynccontextmanager
async def clusters(counts: Sequence[int]) -> AsyncIterator[dict[int, Cluster]]:
    """For each count a cluster of its own, on a Redis of its own: the others idle meanwhile."""
    async with contextlib.AsyncExitStack() as stack:
        running = {}
        for count in counts:
            redis = await stack.enter_async_context(await engines.start("redis"))
            running[count] = await stack.enter_async_context(Cluster(redis.url, count))
        yield running


async def report_rooms(args: argparse.Namespace) -> None:
    """Many small rooms on each number of instances."""
    title = f"{args.rooms} rooms of {args.room_members} members, {args.each_under_way} messages of each under way"
    await compare_instances(args, title, lambda cluster, count: small_rooms(cluster, args))


async def report_instances(args: argparse.Namespace) -> None:
    """One large room on each number of instances."""
    title = f"One room of {args.members} members, {args.under_way} messages under way"

    def measure(cluster: Cluster, count: int) -> Figures:
        return throughput(cluster, args.members, args.size, args.under_way // count, args.seconds / 5)

    await compare_instances(args, title, measure)


async def compare_instances(args: argparse.Namespace, title: str, measure: Callable[[Cluster, int], Figures]) -> None:
    """One row for each number of instances."""
    figures: dict[int, list[Figures]] = {count: [] for count in args.instances}
    async with clusters(args.instances) as running:
        for each_round in range(args.rounds):
            for count in map(int, rotated([str(count) for count in args.instances], each_round)):
                figures[count].append(measured := measure(running[count], count))
                print(f"  {count} instances: {measured}", file=sys.stderr)
    title += f", {args.size}-byte texts"
    print(f"\n**{title}**, {os.cpu_count()} cores\n")
    print("| instances | deliveries a second | for each CPU second of the busiest instance | µs of CPU for each |")
    print("|---:|---:|---:|---:|")
    base = figures[args.instances[0]]
    for count, found in figures.items():
        # The most of the rounds: whatever else the machine did can only have taken from it.
        most, base_most = (max(each.per_second for each in rounds) for rounds in (found, base))
        each_cpu = statistics.median(each.per_cpu_second for each in found)
        ratio = statistics.median(a.per_cpu_second / b.per_cpu_second for a, b in zip(found, base, strict=True))
        cells = [f"{most:,.0f} ({most / base_most:.2f})", f"{each_cpu:,.0f} ({ratio:.2f})"]
        cells.append(f"{statistics.median(each.micros for each in found):.2f}")
        print(f"| {count} | " + " | ".join(cells) + " |")


async def report_members(args: argparse.Namespace) -> None:
    """One row for each window: CPU for a delivery with few members and with many."""
    few, many = 100, 1000
    async with clusters([1]) as running:
        print(f"\n**One instance, {args.size}-byte texts**: CPU time for each delivery, µs\n")
        print(f"| under way | {few} members | {many:,} members | ratio |")
        print("|---:|---:|---:|---:|")
        for window in args.windows:
            found: dict[int, list[float]] = {few: [], many: []}
            for each_round in range(args.rounds):
                for members in (few, many) if each_round % 2 else (many, few):
                    seconds = args.seconds / 5
                    found[members].append(throughput(running[1], members, args.size, window, seconds).micros)
            ratio = statistics.median(b / a for a, b in zip(found[few], found[many], strict=True))
            a, b = (statistics.median(each) for each in found.values())
            verdict = "holds" if ratio <= LIMIT_MEMBERS else f"DOES NOT HOLD: at most {LIMIT_MEMBERS}"
            print(f"| {window} | {a:.2f} | {b:.2f} | {ratio:.2f} {verdict} |")


REPORTS = {
    "delay": report_delay,
    "rooms": report_rooms,
    "instances": report_instances,
    "members": report_members,
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", *REPORTS], default="all")
    parser.add_argument("--rate", type=float, default=100, help="messages a second, for delay")
    parser.add_argument("--seconds", type=float, default=10, help="of one round of delay; a fifth of it for the others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="bytes of a text")
    parser.add_argument("--members", type=int, default=400, help="for instances")
    parser.add_argument("--instances", type=numbers, default=[1, 2, 4], help="for rooms and instances")
    parser.add_argument("--rooms", type=int, default=256)
    parser.add_argument("--room-members", type=int, default=2)
    parser.add_argument("--each-under-way", type=int, default=8, help="messages of each room, for rooms")
    parser.add_argument("--under-way", type=int, default=128, help="messages, for instances")
    parser.add_argument("--windows", type=numbers, default=[1, 32], help="messages under way, for members")
    parser.add_argument("--chart", type=Path, help="where delay's chart goes")
    parser.add_argument("--quick", action="store_true", help="one short round")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 2.0
    for name, report in REPORTS.items():
        if args.what in ("all", name):
            await report(args)


if __name__ == "__main__":
    asyncio.run(main())
