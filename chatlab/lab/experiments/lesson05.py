"""Lesson 05's experiments: the same tests on every installed engine.

A `Candidate` is one broker on one engine. `line_up` starts the engines, `with_each` runs an experiment on all of them,
one after another; the shorter experiments are cells of the lesson. Killing an engine, or looking at its process, works
only with an engine that was started here. Times are in seconds. Left out: routing and protocols
(`lesson05_abilities.py`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as count_up
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import psutil

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker, GroupConsumer, HasGroups, KeepsHistory, Reader
from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import EngineMissing, EngineUnreachable
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.progress import Progress
from chatlab.lab.runtime import Lab
from chatlab.locale import _

__all__ = [
    "Candidate",
    "Order",
    "count",
    "fan_out",
    "fresh",
    "kept_after_kill",
    "line_up",
    "looked_for",
    "order",
    "publish_all",
    "publish_for",
    "restart_with",
    "with_each",
]

T = TypeVar("T")

SILENCE = 0.5  # seconds without a message after which no more are expected
PATIENCE = 30.0
IN_FLIGHT = 256
# A quorum queue that is less than about a second old when its RabbitMQ (3.10) is killed has no leader afterwards, and
# its readers wait forever. That is a separate fault; this experiment is about what a queue in use keeps.
SETTLE_SECONDS = 2.0


@dataclass
class Candidate:
    """One broker on one engine; `memory` has no engine and exists only in this process."""

    name: str
    connect: Callable[[], Broker]
    engine: Engine | None = None
    seconds_to_start: float | None = None  # None: unknown, because it was already running
    used: float | None = None  # the engine's processor time in the last experiment, in seconds

    @property
    def ours(self) -> bool:
        """Whether the engine was started here, so that it can be killed and its process inspected."""
        return self.engine is not None and self.engine.pid is not None

    async def open(self, number: int = 1) -> list[Broker]:
        """Start `number` brokers, as that many servers would; without an engine, all are the same broker."""
        brokers = [self.connect() for __ in range(number)] if self.engine else [self.connect()] * number
        for broker in brokers if self.engine else brokers[:1]:
            await broker.start()
        return brokers

    async def broker(self) -> Broker:
        """Start one broker."""
        return (await self.open())[0]

    def memory(self) -> int | None:
        """Return the engine's resident memory in bytes, including the processes it started."""
        return sum(process.memory_info().rss for process in self._processes()) if self.ours else None

    def processor_seconds(self) -> float | None:
        """Return the processor time that the engine has used so far."""
        if not self.ours:
            return None
        return sum(map(_processor_seconds, self._processes()))

    def _processes(self) -> list[psutil.Process]:
        assert self.engine is not None and self.engine.pid is not None
        server = psutil.Process(self.engine.pid)
        return [server, *server.children(recursive=True)]

    def __repr__(self) -> str:
        return self.name


def _processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process; Linux counts it in nanoseconds for each thread, elsewhere in ticks."""
    try:
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9 or _in_ticks(process)
    except OSError:
        return _in_ticks(process)


def _in_ticks(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


BROKERS: Mapping[str, tuple[str, Callable[[str], Broker]]] = {
    "Redis Pub/Sub": ("redis", RedisPubSubBroker),
    "Redis Streams": ("redis", lambda url: RedisStreamsBroker(url, takeover_after=0.5)),  # not shown: a product's name
    "RabbitMQ": ("rabbitmq", RabbitMQBroker),
    "Kafka": ("kafka", lambda url: KafkaBroker(url, takeover_after=2)),
}
KINDS = ("redis", "rabbitmq", "kafka")


# --- The engines -----------------------------------------------------------------------------------------------------


def looked_for() -> dict[str, str]:
    """Return for each kind of engine which one was found and how, or the command to get it."""
    found = {}
    for kind in KINDS:
        try:
            engine = engines.find(kind)
            found[kind] = f"✔ {engine.version or engine.url}: {engine.how}"
        except EngineMissing as missing:
            found[kind] = "✘ " + _("not here; to get it: {command}").format(command=missing.remedy)
    return found


async def line_up(lab: Lab) -> list[Candidate]:
    """Return a candidate for each broker whose engine is here, and for `memory`; start the engines at the first call.

    All engines start at once. One that has been killed since is started again, with its data.
    """
    kinds = [kind for kind in KINDS if _is_here(kind)]
    if all(f"{kind} engine" in lab.names for kind in kinds):
        running = [await _ready(lab, kind) for kind in kinds]
    else:
        with Progress(_("starting"), len(kinds)) as progress:
            running = await asyncio.gather(*(_step(progress, kind, _ready(lab, kind)) for kind in kinds))
    candidates = [Candidate("memory", MemoryBroker, seconds_to_start=0.0)]
    found = dict(zip(kinds, running, strict=True))
    for name, (kind, broker) in BROKERS.items():
        if engine := found.get(kind):
            candidates.append(Candidate(name, partial(broker, engine.url), engine, _seconds_to_start.get(engine)))
    return candidates


def _is_here(kind: str) -> bool:
    try:
        engines.find(kind)
    except EngineMissing:
        return False
    return True


_seconds_to_start: weakref.WeakKeyDictionary[Engine, float] = weakref.WeakKeyDictionary()


async def _ready(lab: Lab, kind: str) -> Engine | None:
    """Return the lab's engine of this kind, started if it is not running; None if it does not answer."""
    began = time.monotonic()
    try:
        if f"{kind} engine" in lab.names:
            return await lab.engine(kind)
        engine = await lab.start(f"{kind} engine", engines.start(kind))
    except EngineUnreachable:
        return None
    if engine.pid is not None:
        _seconds_to_start[engine] = time.monotonic() - began
    return engine


async def restart_with(candidates: Iterable[Candidate], change: Callable[[Engine], object]) -> None:
    """Let `change` enable plugins in each RabbitMQ that was started here, and start it again, unless it has some."""
    for engine in {id(each.engine): each.engine for each in candidates if each.ours}.values():
        if engine is not None and engine.kind == "rabbitmq" and not _has_plugins(engine):
            engine.kill()
            change(engine)
            await engine.restart()


def _has_plugins(engine: Engine) -> bool:
    assert engine.folder is not None
    return "rabbitmq_" in (engine.folder / "enabled_plugins").read_text(encoding="utf-8")


async def with_each(
    candidates: Iterable[Candidate], experiment: Callable[[Broker], Awaitable[T]], title: str
) -> dict[str, T]:
    """Run `experiment` on a new broker of each candidate in turn; return the results by the candidates' names."""
    chosen = list(candidates)
    results = {}
    with Progress(title, len(chosen)) as step:
        for candidate in chosen:
            step(candidate.name)
            broker = await candidate.broker()
            before = candidate.processor_seconds()
            try:
                results[candidate.name] = await experiment(broker)
            finally:
                await broker.aclose()
            after = candidate.processor_seconds()
            candidate.used = None if before is None or after is None else after - before
    return results


# --- What the experiments share --------------------------------------------------------------------------------------


def fresh(topic: str) -> str:
    """Return an unused topic, so that an experiment can be repeated."""
    return f"{topic}.{uuid.uuid4().hex[:8]}"


async def publish_all(broker: Broker, topic: str, messages: int) -> None:
    """Publish the numbers 0, 1, 2, … in order."""
    await _publish_each(broker, topic, (b"%d" % number for number in range(messages)))


async def publish_for(
    seconds: float, broker: Broker, topic: str, *, last: bytes = b"end", in_flight: int = IN_FLIGHT
) -> None:
    """Publish numbers, in order, for that many seconds, and then `last`; at most `in_flight` are unconfirmed."""
    end = time.monotonic() + seconds

    def bodies() -> Iterator[bytes]:
        yield from (b"%d" % number for number in takewhile(lambda __: time.monotonic() < end, count_up()))
        yield last

    await _publish_each(broker, topic, bodies(), in_flight)


async def _publish_each(broker: Broker, topic: str, bodies: Iterable[bytes], in_flight: int = IN_FLIGHT) -> None:
    """Publish in order, with at most `in_flight` unconfirmed messages."""
    free = asyncio.Semaphore(in_flight)

    async def publish(body: bytes) -> None:
        try:
            await broker.publish(topic, body)
        finally:
            free.release()

    async with asyncio.TaskGroup() as publishing:
        for body in bodies:
            await free.acquire()
            publishing.create_task(publish(body))


async def take(reader: Reader, messages: int) -> list[bytes]:
    """Return the bodies of the next `messages` records. Raises TimeoutError after `PATIENCE` seconds."""
    bodies: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(bodies) < messages:
            bodies += [record.body for record in await reader.batch(messages - len(bodies))]
    return bodies


async def count(reader: Reader, *, at_most: int = 1 << 30, silence: float = SILENCE) -> int:
    """Count records until none arrives for `silence` seconds, or until there are `at_most`."""
    received = 0
    while received < at_most:
        try:
            async with asyncio.timeout(silence):
                received += len(await reader.batch())
        except TimeoutError:
            break
    return received


async def close_all(brokers: Sequence[Broker]) -> None:
    """Close each broker once."""
    for broker in {id(broker): broker for broker in brokers}.values():
        await broker.aclose()


# --- More readers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FanOut:
    """The cost of delivering `messages` records to each of `readers` servers."""

    readers: int
    messages: int
    complete: bool
    engine: float | None  # seconds of the engine's processor time

    @property
    def each(self) -> float | None:
        """The engine's processor time for one record to all readers, in seconds."""
        return None if self.engine is None else max(self.engine, 0.0) / self.messages


async def fan_out(candidate: Candidate, readers: int, *, messages: int = 500) -> FanOut:
    """Let `readers` servers, each with its own connection, read what one of them publishes."""
    brokers = await candidate.open(readers)
    topic = fresh("everybody")
    try:
        subscriptions = [await broker.subscribe(topic) for broker in brokers]
        before = candidate.processor_seconds()
        reading = [asyncio.create_task(take(each, messages)) for each in subscriptions]
        await publish_all(brokers[0], topic, messages)
        bodies = await asyncio.gather(*reading)
        after = candidate.processor_seconds()
    finally:
        await close_all(brokers)
    complete = all(each == [b"%d" % number for number in range(messages)] for each in bodies)
    return FanOut(readers, messages, complete, None if before is None or after is None else after - before)


# --- Order -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Whether each publisher's records arrived in its order, and whether two readers received the same order."""

    own: bool
    shared: bool


async def order(candidate: Candidate, *, messages: int = 200) -> Order:
    """Let two servers publish at the same time and two read."""
    brokers = await candidate.open(2)
    topic = fresh("order")
    try:
        subscriptions = [await broker.subscribe(topic) for broker in brokers]
        reading = [asyncio.create_task(take(each, 2 * messages)) for each in subscriptions]
        await asyncio.gather(
            *(_publish_named(broker, topic, name, messages) for broker, name in zip(brokers, "AB", strict=True))
        )
        one, other = await asyncio.gather(*reading)
    finally:
        await close_all(brokers)
    own = all(
        [body for body in seen if body[:1] == name] == [b"%s%d" % (name, n) for n in range(messages)]
        for seen in (one, other)
        for name in (b"A", b"B")
    )
    return Order(own, one == other)


async def _publish_named(broker: Broker, topic: str, name: str, messages: int) -> None:
    async with asyncio.TaskGroup() as publishing:
        for number in range(messages):
            publishing.create_task(_publish(broker, topic, f"{name}{number}"))


async def _publish(broker: Broker, topic: str, body: str) -> None:
    await broker.publish(topic, body.encode())


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def kept_after_kill(
    candidates: Iterable[Candidate], *, messages: int = 200, while_down: Callable[[Engine], object] | None = None
) -> dict[str, int]:
    """Publish `messages` to each candidate, kill every engine with SIGKILL, restart it; return how many are left.

    All messages are confirmed before the kill. What is left is read from the history (`KeepsHistory`); without one, by
    a worker of a group that was absent (`HasGroups`); else by a new subscriber. `memory` dies with its process: a new
    broker takes its place.
    """
    topic = fresh("kept")
    chosen = [candidate for candidate in candidates if candidate.ours or candidate.engine is None]
    killed = {id(each.engine): each.engine for each in chosen if each.engine is not None}.values()
    with Progress("kill -9", 2 * len(chosen) + len(killed)) as progress:
        for candidate in chosen:
            await _step(
                progress, _("publishing to {broker}").format(broker=candidate.name), _fill(candidate, topic, messages)
            )
        if killed:
            progress.now = [_("waiting a moment for new queues to settle")]
            await asyncio.sleep(SETTLE_SECONDS)
            progress.now = []
        for engine in killed:
            engine.kill()
            if while_down is not None:
                while_down(engine)
        await asyncio.gather(
            *(_step(progress, _("restarting {engine}").format(engine=each.kind), each.restart()) for each in killed)
        )
        return {
            candidate.name: await _step(
                progress, _("reading from {broker}").format(broker=candidate.name), _left(candidate, topic, messages)
            )
            for candidate in chosen
        }


async def _step(progress: Progress, what: str, work: Awaitable[T]) -> T:
    progress.begin(what)
    try:
        return await work
    finally:
        progress.done(what)


async def _fill(candidate: Candidate, topic: str, messages: int) -> None:
    broker = await candidate.broker()
    if isinstance(broker, HasGroups):
        worker = await broker.join(topic, "workers", "one")  # from now on the group exists, and work is kept for it
        await worker.aclose()
    await publish_all(broker, topic, messages)
    await broker.aclose()


async def _left(candidate: Candidate, topic: str, messages: int) -> int:
    broker = await candidate.broker()
    try:
        if isinstance(broker, KeepsHistory):
            return len(await broker.history(topic))
        if isinstance(broker, HasGroups):
            return await _work(await broker.join(topic, "workers", "one"), messages)
        return await count(await broker.subscribe(topic), at_most=messages)
    finally:
        await broker.aclose()


async def _work(worker: GroupConsumer, at_most: int, *, silence: float = 3) -> int:
    """Count as `count` does, and acknowledge each record: an engine limits how many may be unacknowledged."""
    done = 0
    while done < at_most:
        try:
            async with asyncio.timeout(silence):
                batch = await worker.batch()
        except TimeoutError:
            break
        for record in batch:
            await worker.ack(record)
        done += len(batch)
    return done
