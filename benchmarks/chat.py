"""Compare what a STOMP chat costs a server: chatlab, RabbitMQ's web-stomp plugin, and the npm package stomp-broker-js.

    python -m benchmarks.chat                 everything, about eight minutes
    python -m benchmarks.chat --quick         one short round, to check that everything works
    python -m benchmarks.chat throughput --subscribers 100,500 --sizes 64,1024 --windows 1,4,32 --rounds 3
    python -m benchmarks.chat latency --rate 100

Each server runs in its own process, pinned to the first core if there are two. The load runs in this process, pinned to
the second, as is the Redis that one of chatlab's two servers publishes through; its CPU time is reported separately. A
machine's speed drifts, so the servers take turns, ratios are taken within a round, and the tables show the median of
the rounds. A peer that is not installed is skipped with a message.

**throughput**: N subscribers to one destination, and one more client that sends. `window` messages are in flight at any
time: a new one is sent when every subscriber has received the oldest. The figure is deliveries per second of the
server's CPU time. **latency**: messages at a steady rate, and the time from when each was due (not sent, so that a
server that blocks cannot hide it) until each subscriber had received it.

Every text carries a number, and each subscriber must receive every number once and in order, or the run ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from benchmarks.room import MASK, header, numbers, percentile, pin, rotated, shake_hands
from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.kinds import free_ports
from tests.support.node import FOLDER, packages

ROOT = Path(__file__).parent.parent
MARK = b"#~"  # precedes each number, which has NUMBER digits
NUMBER = 8
FRAME_END = b"\0"
BODY = b'{"type":"CHAT","sender":"bench","content":"%s"}'  # as sent by the article's page


@dataclass(frozen=True)
class Peer:
    """A running server: how to reach it, and whose CPU time counts. That of `broker_pids` is reported separately."""

    port: int
    pids: tuple[int, ...]
    send: str = "/topic/bench"
    subscribe: str = "/topic/bench"
    host: str = "/"
    login: tuple[str, str] | None = None
    broker_pids: tuple[int, ...] = ()

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes since they started."""
        return cpu_seconds(self.pids)

    def broker_cpu_seconds(self) -> float:
        """Return the same for the broker behind it, if that is a separate process."""
        return cpu_seconds(self.broker_pids)


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """Return the CPU time of processes and all their descendants."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
    return total


def pin_all(pid: int, core: int) -> None:
    """Pin a process, its descendants and all their threads to a core."""
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                pin(thread.id, core)


# --- The servers ---


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process on the first core, and end it on exit."""
    running = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        pin_all(running.pid, 0)
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(10)
        running.kill()
        running.wait()


@contextlib.contextmanager
def engine(kind: str, **options: str) -> Iterator[engines.Engine]:
    """Run an engine of chatlab's lab."""
    with asyncio.Runner() as runner:
        started = runner.run(engines.start(kind, options=options))
        try:
            yield started
        finally:
            runner.run(started.stop())


@contextlib.contextmanager
def chatlab_on(broker: str, broker_pids: tuple[int, ...] = ()) -> Iterator[Peer]:
    """Run `chatlab serve chat` as it is deployed."""
    command = [sys.executable, "-c", "from chatlab.cli import main; main()", "serve", "chat", "--port", "0"]
    with process(*command, "--broker", broker) as server:
        assert server.stdout is not None
        port = int(re.search(r":(\d+)/", server.stdout.readline())[1])  # type: ignore[index]  # its address
        yield Peer(port, (server.pid,), "/app/chat.sendMessage", "/topic/public", broker_pids=broker_pids)


@contextlib.contextmanager
def chatlab_in_memory() -> Iterator[Peer]:
    """Run one instance without an engine."""
    with chatlab_on("memory://") as peer:
        yield peer


@contextlib.contextmanager
def chatlab_redis_streams() -> Iterator[Peer]:
    """Run one instance, with its own Redis on the other core."""
    with engine("redis") as redis:
        assert redis.pid is not None
        pin_all(redis.pid, 1)
        with chatlab_on(redis.url, (redis.pid,)) as peer:
            yield peer


@contextlib.contextmanager
def stomp_broker_js() -> Iterator[Peer]:
    """Run the npm package with its defaults, except for heart-beats, which are turned off."""
    modules = packages(["stomp-broker-js@1.3.0"], FOLDER.with_name("node-peers"))
    script = """
        const server = require('http').createServer();
        new (require('stomp-broker-js'))({ server, path: '/ws', heartbeat: [0, 0] });
        server.listen(0, '127.0.0.1', 2048, () => console.log(server.address().port));
    """
    with process("node", "-e", script, NODE_PATH=str(modules)) as server:
        assert server.stdout is not None
        yield Peer(int(server.stdout.readline()), (server.pid,))


@contextlib.contextmanager
def rabbitmq_web_stomp() -> Iterator[Peer]:
    """Run RabbitMQ with its plugin for STOMP over WebSocket."""
    stomp, web = free_ports(2)
    options = {
        "plugins": "rabbitmq_web_stomp",
        "stomp.listeners.tcp.1": f"127.0.0.1:{stomp}",
        "web_stomp.tcp.ip": "127.0.0.1",
        "web_stomp.tcp.port": str(web),
    }
    with engine("rabbitmq", **options) as rabbitmq:
        assert rabbitmq.pid is not None
        pin_all(rabbitmq.pid, 0)
        yield Peer(web, (rabbitmq.pid,), login=("guest", "guest"))


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Peer]]] = {
    "chatlab, in memory": chatlab_in_memory,
    "chatlab, Redis Streams": chatlab_redis_streams,
    "stomp-broker-js": stomp_broker_js,
    "RabbitMQ web-stomp": rabbitmq_web_stomp,
}
PEERS = ("stomp-broker-js", "RabbitMQ web-stomp")


# --- The load ---


def stomp(command: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return one STOMP frame."""
    lines = [command, *(f"{name}:{value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + body + FRAME_END


@dataclass(eq=False)
class Client:
    """One connection: the number of messages received, and the end of the octets, where a number may be incomplete."""

    sock: socket.socket
    received: int = 0
    rest: bytes = b""

    @classmethod
    def connect(cls, peer: Peer) -> Client:
        """Connect, and wait for CONNECTED."""
        client = cls(shake_hands(peer.port, path="/ws"))
        more = {"login": peer.login[0], "passcode": peer.login[1]} if peer.login else {}
        headers = {"accept-version": "1.2", "host": peer.host, "heart-beat": "0,0", **more}
        client.send(stomp("CONNECT", headers))
        client.wait_for(b"CONNECTED")
        return client

    def send(self, *frames: bytes) -> None:
        """Send each frame as a WebSocket message."""
        self.sock.setblocking(True)
        self.sock.sendall(b"".join(header(0x81, len(frame), 0x80) + MASK + frame for frame in frames))

    def wait_for(self, word: bytes) -> None:
        """Read until `word` arrives; exit after an ERROR."""
        self.sock.settimeout(30)
        data = b""
        while word not in data:
            data += (more := self.sock.recv(4096))
            if not more or b"ERROR" in data:
                raise SystemExit(f"waited for {word!r}, received {data!r}")

    def take(self) -> int:
        """Read, and return how many messages arrived; exit unless their numbers increase by one."""
        data = self.rest + (more := self.sock.recv(1 << 18))
        if not more:
            raise SystemExit(f"closed after {self.received} messages: {self.rest!r}")
        count = data.count(MARK)
        if count and data.rfind(MARK) > len(data) - len(MARK) - NUMBER:
            count -= 1  # count it once its number is complete
        if count:
            first, last = data.find(MARK), data.rfind(MARK, 0, len(data) - NUMBER)
            if number_at(data, first) != self.received or number_at(data, last) != self.received + count - 1:
                raise SystemExit(f"lost, repeated or out of order after {self.received}: {data[:300]!r}")
            data = data[last + len(MARK) :]
        self.rest = data[-(len(MARK) + NUMBER) :] if MARK in data[-(len(MARK) + NUMBER) :] else data[-1:]
        self.received += count
        return count


def number_at(data: bytes, at: int) -> int:
    return int(data[at + len(MARK) : at + len(MARK) + NUMBER])


@dataclass
class Load:
    """Subscribers, and one client that sends to them."""

    peer: Peer
    size: int  # bytes per body; every server gets the same JSON
    subscribers: list[Client] = field(default_factory=list)
    sent: int = 0
    done: int = 0  # messages that every subscriber has received
    arrived: Callable[[int, int, float], None] | None = None  # from message, to message, time

    def open(self, count: int) -> None:
        """Connect and subscribe every client; return when the server has processed every SUBSCRIBE."""
        self.selector = selectors.DefaultSelector()
        self.sender = Client.connect(self.peer)
        for _ in range(count):
            client = Client.connect(self.peer)
            self.subscribers.append(client)
            client.send(stomp("SUBSCRIBE", {"id": "sub-0", "destination": self.peer.subscribe}))
            client.sock.setblocking(False)
            self.selector.register(client.sock, selectors.EVENT_READ, client)
        self._wait_for_all()
        self.selector.register(self.sender.sock, selectors.EVENT_READ, None)
        self.behind = count

    def _wait_for_all(self) -> None:
        """Send unnumbered texts until every subscriber has received one, because not every server sends a RECEIPT."""
        waiting_for, probes = list(self.subscribers), 0
        start = time.perf_counter()
        while waiting_for:
            waited = time.perf_counter() - start
            if waited > 30:
                raise SystemExit(f"{len(waiting_for)} subscribers have received nothing")
            if waited >= probes / 2:  # twice a second
                self.sender.send(self._frame(b"are you there"))
                probes += 1
            readable = {key.data for key, _ in self.selector.select(0.1)}
            waiting_for = [
                each for each in waiting_for if each not in readable or b"there" not in each.sock.recv(1 << 18)
            ]

    def say(self, count: int) -> None:
        """Send the next `count` messages."""
        texts = [MARK + b"%0*d" % (NUMBER, number) for number in range(self.sent, self.sent + count)]
        self.sender.send(*(self._frame(text) for text in texts))
        self.sent += count

    def _frame(self, text: bytes) -> bytes:
        body = BODY % text.ljust(self.size - len(BODY % b""), b"x")
        headers = {"destination": self.peer.send, "content-type": "application/json", "content-length": str(len(body))}
        return stomp("SEND", headers, body)

    def receive(self, timeout: float) -> None:
        """Read from every client that has data; increase `done` once the last subscriber has received a message."""
        for key, _ in self.selector.select(timeout):
            client: Client | None = key.data
            if client is None:
                raise SystemExit(f"the sender received {self.sender.sock.recv(500)!r}")
            before = client.received
            count = client.take()
            if before == self.done and count:
                self.behind -= 1
            if self.arrived and count:
                self.arrived(before, before + count, time.perf_counter())
        if self.behind == 0:
            self.done = min(client.received for client in self.subscribers)
            self.behind = sum(client.received == self.done for client in self.subscribers)

    def close(self) -> None:
        """Close every connection."""
        for client in (self.sender, *self.subscribers):
            client.sock.close()
        self.selector.close()


@contextlib.contextmanager
def load(peer: Peer, size: int, subscribers: int) -> Iterator[Load]:
    """Connect `subscribers` clients to a server, and subscribe them to its destination."""
    running = Load(peer, size)
    running.open(subscribers)
    try:
        yield running
    finally:
        running.close()


# --- The measurements ---


@dataclass(frozen=True)
class Cost:
    """The deliveries, and the CPU seconds of the broker behind the server, for each second of the server's CPU time."""

    deliveries: float
    broker_share: float


def throughput(peer: Peer, size: int, subscribers: int, window: int, seconds: float) -> Cost:
    """Keep `window` messages in flight for `seconds`, and return the cost."""
    with load(peer, size, subscribers) as room:
        for share in (0.25, 1):  # the first is a warm-up
            cpu, broker_cpu, first = peer.cpu_seconds(), peer.broker_cpu_seconds(), room.done
            end = time.perf_counter() + seconds * share
            while time.perf_counter() < end:
                if room.sent < room.done + window:
                    room.say(room.done + window - room.sent)
                room.receive(0)
            while room.done < room.sent:
                room.receive(0)
        used = peer.cpu_seconds() - cpu
        return Cost((room.done - first) * subscribers / used, (peer.broker_cpu_seconds() - broker_cpu) / used)


def latencies(peer: Peer, size: int, subscribers: int, rate: float, seconds: float) -> list[float]:
    """Return each delivery's milliseconds from when its message was due."""
    times: list[float] = []
    with load(peer, size, subscribers) as room:
        start = time.perf_counter() + 0.1
        room.arrived = lambda first, last, at: times.extend((at - start - n / rate) * 1000 for n in range(first, last))
        total = int(rate * seconds)
        while room.done < total:
            due = min(total, max(0, int((time.perf_counter() - start) * rate) + 1))
            if room.sent < due:
                room.say(due - room.sent)
            next_due = start + room.sent / rate - time.perf_counter()
            room.receive(max(0.0, next_due) if room.sent < total else 1)
    warmed_up = len(times) // 10
    return times[warmed_up:]


def ratios(figures: dict[str, list[float]], *, highest: bool) -> dict[str, float]:
    """Return each server's ratio to the best peer: the median of the rounds' ratios."""
    peers = [name for name in PEERS if name in figures] or list(figures)
    reference = (max if highest else min)(peers, key=lambda name: statistics.median(figures[name]))
    pairs = {name: zip(values, figures[reference], strict=True) for name, values in figures.items()}
    return {name: statistics.median(a / b for a, b in pair) for name, pair in pairs.items()}


def report_throughput(args: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Print one table per number of subscribers and size, with one column per window."""
    for subscribers, size in ((n, size) for n in args.subscribers for size in args.sizes):
        rows: dict[str, list[str]] = {name: [] for name in peers}
        broker_shares: dict[str, list[str]] = {name: [] for name in peers}
        for window in args.windows:
            costs: dict[str, list[Cost]] = {name: [] for name in peers}
            for round_number in range(args.rounds):
                for name in rotated(list(peers), round_number):
                    costs[name].append(cost := throughput(peers[name], size, subscribers, window, args.seconds))
                    print(f"  {subscribers}, {size} B, {window}, {name}: {cost.deliveries:,.0f}", file=sys.stderr)
            figures = {name: [cost.deliveries for cost in values] for name, values in costs.items()}
            for name, ratio in ratios(figures, highest=True).items():
                rows[name].append(f"{statistics.median(figures[name]):,.0f} ({ratio:.2f})")
                broker_shares[name].append(f"{statistics.median(cost.broker_share for cost in costs[name]):.0%}")
        print(f"\n**{subscribers} subscribers, {size}-byte bodies**: deliveries per second of server CPU (and ratio)\n")
        print("| server | " + " | ".join(f"{w} in flight" for w in args.windows) + " | CPU of Redis |")
        print("|---|" + "---:|" * (len(args.windows) + 1))
        for name, peer in peers.items():
            shares = " / ".join(broker_shares[name]) if peer.broker_pids else ""
            print(f"| {name} | " + " | ".join([*rows[name], shares]) + " |")
        sys.stdout.flush()


def report_latency(args: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Print one row per server."""
    subscribers, size = args.subscribers[0], args.sizes[0]
    percentiles: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for round_number in range(args.rounds):
        for name in rotated(list(peers), round_number):
            times = latencies(peers[name], size, subscribers, args.rate, args.latency_seconds)
            p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
            percentiles[name].append((p50, p99))
            print(f"  latency, {name}: {p50:.2f} {p99:.2f} ms", file=sys.stderr)
    print(
        f"\n**Latency** ({subscribers} subscribers, {size}-byte bodies, {args.rate:g} messages per second),"
        " ms (and ratio)\n"
    )
    print("| server | median | 99th percentile |")
    print("|---|---:|---:|")
    p50s = ratios({name: [each[0] for each in rounds] for name, rounds in percentiles.items()}, highest=False)
    p99s = ratios({name: [each[1] for each in rounds] for name, rounds in percentiles.items()}, highest=False)
    for name, rounds in percentiles.items():
        p50, p99 = (statistics.median(each[which] for each in rounds) for which in (0, 1))
        print(f"| {name} | {p50:.2f} ({p50s[name]:.2f}) | {p99:.2f} ({p99s[name]:.2f}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", nargs="?", choices=["all", "throughput", "latency"], default="all")
    parser.add_argument("--servers", help=f"names, separated by semicolons (default: {'; '.join(SERVERS)})")
    parser.add_argument("--subscribers", type=numbers, default=[100, 500])
    parser.add_argument("--sizes", type=numbers, default=[64, 1024], help="bytes per body")
    parser.add_argument("--windows", type=numbers, default=[1, 4, 32], help="messages in flight")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per throughput measurement")
    parser.add_argument("--rate", type=float, default=100, help="messages per second, for latency")
    parser.add_argument("--latency-seconds", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="run one short round")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.latency_seconds = 1, 0.5, 1.0
        args.subscribers, args.sizes = args.subscribers[:1], args.sizes[:1]
    pin(0, 1)
    with contextlib.ExitStack() as stack:
        peers: dict[str, Peer] = {}
        for name in args.servers.split(";") if args.servers else SERVERS:
            try:
                peers[name.strip()] = stack.enter_context(SERVERS[name.strip()]())
            except (EngineMissing, pytest.skip.Exception) as absent:
                print(f"skipping {name}: {absent}", file=sys.stderr)
        if args.measurement in ("all", "throughput"):
            report_throughput(args, peers)
        if args.measurement in ("all", "latency"):
            report_latency(args, peers)


if __name__ == "__main__":
    main()
