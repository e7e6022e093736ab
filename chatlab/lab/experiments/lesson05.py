"""Lesson 05's experiments: every engine that is there, put through the same.

A `Candidate` is one broker on one engine. `line_up` starts the engines, `with_each` runs an experiment on all, one
after another; the shorter experiments are cells of the lesson. What needs to kill an engine, or to look at its process,
can be done only with an engine that was started here. Times are seconds. Left out: what an engine can do for routing
and which protocols it speaks, which is `lesson05_abilities.py`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as count_up
from itertools import takewhile
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
    "with_each",
]

T = TypeVar("T")

SILENCE = 0.5  # seconds without a message after which nothing more is expected
PATIENCE = 30.0
IN_FLIGHT = 256
TICK = 0.01  # seconds: the system counts processor time in steps of this
# A quorum queue that is younger than about a second when its RabbitMQ (3.10) is killed has no leader afterwards, and
# whoever wants to read it waits for ever. That is a fault of its own; what is asked here is what a queue in use keeps.
SETTLE_SECONDS = 2.0


@dataclass
class Candidate:
    """One broker on one engine; `memory` has none, and lives in this process alone."""

    name: str
    connect: Callable[[], Broker]
    engine: Engine | None = None
    seconds_to_start: float | None = None  # None: not known, for it was running before us
    used: float | None = None  # seconds of processor time of the engine in the experiment that was run last

    @property
    def ours(self) -> bool:
        """Whether the engine was started here, so that we may kill it and look at its process."""
        return self.engine is not None and self.engine.pid is not None

    async def open(self, number: int = 1) -> list[Broker]:
        """`number` brokers as so many servers would have them; without an engine, all of them the same one."""
        brokers = [self.connect() for _ in range(number)] if self.engine else [self.connect()] * number
        for broker in brokers if self.engine else brokers[:1]:
            await broker.start()
        return brokers

    async def broker(self) -> Broker:
        """One broker, started."""
        return (await self.open())[0]

    def memory(self) -> int | None:
        """Bytes of memory that the engine holds now (its resident set, helpers it started included)."""
        return sum(process.memory_info().rss for process in self._processes()) if self.ours else None

    def processor_seconds(self) -> float | None:
        """The processor time the engine has used so far."""
        if not self.ours:
            return None
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def _processes(self) -> list[psutil.Process]:
        assert self.engine is not None and self.engine.pid is not None
        server = psutil.Process(self.engine.pid)
        return [server, *server.children(recursive=True)]

    def __repr__(self) -> str:
        return self.name


BROKERS: Mapping[str, tuple[str, Callable[[str], Broker]]] = {
    "Redis Pub/Sub": ("redis", RedisPubSubBroker),
    "Redis Streams": ("redis", lambda url: RedisStreamsBroker(url, takeover_after=0.5)),
    "RabbitMQ": ("rabbitmq", RabbitMQBroker),
    "Kafka": ("kafka", lambda url: KafkaBroker(url, takeover_after=2)),
}
KINDS = ("redis", "rabbitmq", "kafka")


# --- Who is there ----------------------------------------------------------------------------------------------------


def looked_for() -> dict[str, str]:
    """For each kind of engine: which one is here and how it was found, or the command that brings it."""
    found = {}
    for kind in KINDS:
        try:
            engine = engines.find(kind)
            found[kind] = f"✔ {engine.version or engine.url}: {engine.how}"
        except EngineMissing as missing:
            found[kind] = f"✘ not here; {missing.remedy} brings it"
    return found


async def line_up(lab: Lab) -> list[Candidate]:
    """Start every engine there is, all at once; one candidate for each broker that has an engine, and `memory`."""
    with Progress("starting", len(KINDS)) as progress:
        started = await asyncio.gather(*(_start(lab, kind, progress) for kind in KINDS))
    running = dict(zip(KINDS, started, strict=True))
    candidates = [Candidate("memory", MemoryBroker, seconds_to_start=0.0)]
    for name, (kind, broker) in BROKERS.items():
        if one := running[kind]:
            engine, seconds = one
            candidates.append(Candidate(name, partial(broker, engine.url), engine, seconds))
    return candidates


async def _start(lab: Lab, kind: str, progress: Progress) -> tuple[Engine, float | None] | None:
    progress.begin(kind)
    began = time.monotonic()
    try:
        engine = await lab.start(f"{kind} engine", engines.start(kind))
    except (EngineMissing, EngineUnreachable):
        return None
    finally:
        progress.done(kind)
    return engine, time.monotonic() - began if engine.pid else None


async def with_each(
    candidates: Iterable[Candidate], experiment: Callable[[Broker], Awaitable[T]], title: str
) -> dict[str, T]:
    """Run `experiment` on a fresh broker of each candidate in turn; what it returned, by name."""
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
    """A topic nobody has used, so that an experiment may be run again."""
    return f"{topic}.{uuid.uuid4().hex[:8]}"


async def publish_all(broker: Broker, topic: str, messages: int) -> None:
    """Publish the numbers from 0 on, in order."""
    await _publish_each(broker, topic, (b"%d" % number for number in range(messages)))


async def publish_for(seconds: float, broker: Broker, topic: str, *, last: bytes = b"end") -> None:
    """Publish numbers, in order, for so many seconds, and then `last`."""
    end = time.monotonic() + seconds

    def bodies() -> Iterator[bytes]:
        yield from (b"%d" % number for number in takewhile(lambda _: time.monotonic() < end, count_up()))
        yield last

    await _publish_each(broker, topic, bodies())


async def _publish_each(broker: Broker, topic: str, bodies: Iterable[bytes]) -> None:
    """Publish in order, with at most `IN_FLIGHT` of them not yet confirmed."""
    free = asyncio.Semaphore(IN_FLIGHT)

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
    """The bodies of the next `messages` records. Raises TimeoutError."""
    bodies: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(bodies) < messages:
            bodies += [delivery.body for delivery in await reader.batch(messages - len(bodies))]
    return bodies


async def count(reader: Reader, *, at_most: int = 1 << 30, silence: float = SILENCE) -> int:
    """How many records come before a pause of `silence`, or until there are `at_most`."""
    heard = 0
    while heard < at_most:
        try:
            async with asyncio.timeout(silence):
                heard += len(await reader.batch())
        except TimeoutError:
            break
    return heard


async def close_all(brokers: Sequence[Broker]) -> None:
    """Close each broker once."""
    for broker in {id(broker): broker for broker in brokers}.values():
        await broker.aclose()


# --- More readers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FanOut:
    """What it took to bring `messages` records to each of `readers` servers."""

    readers: int
    messages: int
    complete: bool
    engine: float | None  # seconds of the engine's processor time

    @property
    def each(self) -> float | None:
        """The engine's processor time for one record, to all readers; what is less than a tick counts as one."""
        return None if self.engine is None else max(self.engine, TICK) / self.messages


async def fan_out(candidate: Candidate, readers: int, *, messages: int = 300) -> FanOut:
    """As many servers as `readers`, each with a connection of its own, read what one of them publishes."""
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
    """Whether each publisher's records came in its own order, and whether two readers saw all in one same order."""

    own: bool
    shared: bool


async def order(candidate: Candidate, *, messages: int = 200) -> Order:
    """Two servers publish at once, two read."""
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
    """Publish `messages` to each candidate, all confirmed; kill every engine with SIGKILL; restart it; what is left.

    What can be read again is read (`KeepsHistory`); else what waits for a group of workers that was away (`HasGroups`);
    else what still comes to somebody who subscribes again. `memory` dies with its process: a new one stands for that.
    """
    topic = fresh("kept")
    chosen = [candidate for candidate in candidates if candidate.ours or candidate.engine is None]
    killed = {id(each.engine): each.engine for each in chosen if each.engine is not None}.values()
    with Progress("kill -9", 2 * len(chosen) + len(killed)) as progress:
        for candidate in chosen:
            await _step(progress, f"publishing to {candidate.name}", _fill(candidate, topic, messages))
        if killed:
            progress.now = ["a moment for what is new to settle"]
            await asyncio.sleep(SETTLE_SECONDS)
            progress.now = []
        for engine in killed:
            engine.kill()
            if while_down is not None:
                while_down(engine)
        await asyncio.gather(*(_step(progress, f"{each.kind} starts again", each.restart()) for each in killed))
        return {
            candidate.name: await _step(progress, f"reading from {candidate.name}", _left(candidate, topic, messages))
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
        worker = await broker.join(topic, "workers", "one")  # from now on there is a group, and work waits for it
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
    """As `count`, and acknowledge each: an engine hands out only so much that is not."""
    done = 0
    while done < at_most:
        try:
            async with asyncio.timeout(silence):
                batch = await worker.batch()
        except TimeoutError:
            break
        for delivery in batch:
            await worker.ack(delivery)
        done += len(batch)
    return done
