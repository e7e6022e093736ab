"""Throughput at the engine, without the Python client: measured by the tool that ships with each engine.

    await at_the_engine(candidate)      # messages per second, three times; None where the tool is missing
    found = await compared(candidate)   # the same, and the Python client on the same engine, in turn
    found.ratio                         # the Python client's share of what the engine can take

The conditions are the same for all. One publisher on one connection; bodies of 100 bytes; at most 256 messages that the
engine has not confirmed (Kafka's tool has no such limit: it batches what it has). Nobody reads, so that only publishing
is measured. A channel of Pub/Sub, which would have nothing to do, has one subscriber that discards, and a topic of
RabbitMQ, which keeps nothing by itself, has one queue. The rest are each engine's defaults, as far as it confirms what
it has: a stream of about 10,000 entries, with the append-only file as the server is set; persistent messages to a
classic queue, with publisher confirms; a topic of one partition, acks=all, batches as Kafka's client makes them.

The tools: `redis-benchmark` on PATH, and what `load_tools.py` fetches: RabbitMQ's PerfTest, Kafka's
ProducerPerformance. Java programs become faster while they run, so the first seconds of the last two do not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractQueue
from redis.asyncio import Redis

from chatlab.brokers.rabbitmq.link import EXCHANGE
from chatlab.errors import EngineMissing, SetupError
from chatlab.lab.engines import load_tools
from chatlab.lab.experiments.lesson05 import IN_FLIGHT, Candidate
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.experiments.trials.clients import Kafka, fresh
from chatlab.locale import _

__all__ = ["OCTETS", "Compared", "at_the_engine", "compared", "in_python"]

OCTETS = 100
BODY = b"x" * OCTETS
SECONDS = 2  # for what is measured by time
REDIS_MESSAGES = 200_000
RABBITMQ_WINDOWS, KAFKA_WINDOWS = (2, 4), (1, 1)  # of one and of five seconds: to warm up, and to measure
PATIENCE = 180.0  # seconds for one run of a tool
ATTEMPTS = 3


class Compared(NamedTuple):
    """Messages per second that the engine takes from its own tool, and from the Python client."""

    engine: Repeats
    client: Repeats

    @property
    def ratio(self) -> Repeats:
        """The Python client's share, round by round."""
        return self.client / self.engine


async def at_the_engine(candidate: Candidate, repeats: int = 3) -> Repeats | None:
    """Return messages per second, measured `repeats` times by the engine's own tool; None where the tool is missing."""
    tool = TOOLS.get(candidate.name)
    if tool is None or candidate.engine is None:
        return None
    try:
        return Repeats(tuple([await tool(candidate.engine.url) for __ in range(repeats)]))
    except EngineMissing:
        return None


async def compared(candidate: Candidate, repeats: int = 3) -> Compared | None:
    """Let the engine's own tool and the Python client publish in turn; None where the tool is missing."""
    own: list[float] = []
    python: list[float] = []
    for __ in range(repeats):
        found = await at_the_engine(candidate, 1)
        if found is None:
            return None
        own.append(found.median)
        python.append(await in_python(candidate))
    return Compared(Repeats(tuple(own)), Repeats(tuple(python)))


async def in_python(candidate: Candidate, seconds: float = SECONDS) -> float:
    """Return the messages per second that chatlab's broker publishes, under the same conditions."""
    broker = await candidate.broker()
    topic, free, count = fresh("flood"), asyncio.Semaphore(IN_FLIGHT), 0

    async def publish() -> None:
        try:
            await broker.publish(topic, BODY)
        finally:
            free.release()

    try:
        async with contextlib.AsyncExitStack() as stack:
            if candidate.name == "Redis Pub/Sub":
                listener = await broker.subscribe(topic)
                stack.push_async_callback(listener.aclose)
            if candidate.name == "RabbitMQ" and candidate.engine:
                await stack.enter_async_context(stored(candidate.engine.url, topic))
            began = time.monotonic()
            async with asyncio.TaskGroup() as publishing:
                while time.monotonic() - began < seconds:
                    await free.acquire()
                    publishing.create_task(publish())
                    count += 1
            return count / (time.monotonic() - began)
    finally:
        await broker.aclose()


@contextlib.asynccontextmanager
async def stored(url: str, topic: str) -> AsyncIterator[AbstractQueue]:
    """Bind a durable classic queue to the topic, like PerfTest's, so that RabbitMQ stores what it confirms."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(topic, durable=True)
        await queue.bind(exchange, topic)
        try:
            yield queue
        finally:
            await queue.delete(if_unused=False, if_empty=False)


# --- The tools -------------------------------------------------------------------------------------------------------


async def run(command: Sequence[str]) -> str:
    """Return what a tool prints. Raises SetupError with its last lines if it fails."""
    pipe = asyncio.subprocess.PIPE
    tool = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL)
    try:
        output, errors = await asyncio.wait_for(tool.communicate(), PATIENCE)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            tool.kill()
        raise
    if tool.returncode:
        raise refused(command, errors + output)
    return output.decode(errors="replace")


def refused(command: Sequence[str], output: bytes) -> SetupError:
    """Return the error for a tool that did not measure."""
    failure = _("{tool} measured nothing: {output}")
    text = output.decode(errors="replace").strip()[-300:]
    return SetupError(failure.format(tool=command[0], output=text), _("run it by hand to see more"))


async def warmed_up(command: Sequence[str], pattern: str, windows: tuple[int, int]) -> float:
    """Return the mean of the figures that a tool prints while it runs, without the first ones; then end it.

    `windows`: how many figures do not count, and how many do. `pattern` matches one in a line of its output.
    """
    warm, number = windows
    pipe, merged, none = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT, asyncio.subprocess.DEVNULL
    tool = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=merged, stdin=none)
    assert tool.stdout is not None
    output, found = b"", list[float]()
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in tool.stdout:
                output += line
                found += [float(each.replace(",", "")) for each in re.findall(pattern, line.decode(errors="replace"))]
                if len(found) >= warm + number:
                    return statistics.fmean(found[warm : warm + number])
    finally:
        with contextlib.suppress(ProcessLookupError):
            tool.kill()
        await tool.wait()
    raise refused(command, output)


async def redis_benchmark(url: str, *command: str) -> float:
    """Run `redis-benchmark -c 1 -P 256` with a command."""
    options = ["-u", url, "-c", "1", "-P", str(IN_FLIGHT), "-n", str(REDIS_MESSAGES), "--csv"]
    arguments = [load_tools.redis_benchmark(), *options, *command]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            *__, last = csv.DictReader((await run(arguments)).splitlines())
            return float(last["rps"])
        except SetupError as error:  # on a busy machine it sometimes takes its one connection for lost
            if "clients disconnected" not in str(error) or attempt == ATTEMPTS:  # not shown: redis-benchmark's words
                raise
    raise AssertionError("the last attempt returns or raises")  # not shown: unreachable


async def streams(url: str) -> float:
    """Return how many XADDs per second a Redis takes."""
    key = fresh("flood")
    try:
        return await redis_benchmark(url, "XADD", key, "MAXLEN", "~", "10000", "*", "body", BODY.decode())
    finally:
        async with Redis.from_url(url) as redis:
            await redis.delete(key)


async def pubsub(url: str) -> float:
    """Return how many PUBLISHes per second a Redis takes, with one subscriber."""
    channel = fresh("flood")
    async with discarding(url, channel):
        return await redis_benchmark(url, "PUBLISH", channel, BODY.decode())


@contextlib.asynccontextmanager
async def discarding(url: str, channel: str) -> AsyncIterator[None]:
    """Subscribe, and throw away what arrives without looking at it, which costs this process little."""
    async with Redis.from_url(url) as redis, redis.pubsub() as listener:
        await listener.subscribe(channel)
        await listener.get_message(timeout=PATIENCE)
        reader = listener.connection._reader  # the bytes below the client

        async def discard() -> None:
            while await reader.read(1 << 20):
                pass

        discarded = asyncio.create_task(discard())
        try:
            yield
        finally:
            discarded.cancel()
            await asyncio.gather(discarded, return_exceptions=True)


async def kafka(url: str) -> float:
    """Return how many records per second a Kafka takes from its ProducerPerformance."""
    command = load_tools.java(load_tools.KAFKA)
    async with Kafka(url, partitions=1).topic() as topic:
        command += ["--topic", topic.name, "--num-records", str(1 << 40), "--record-size", str(OCTETS)]
        command += ["--throughput", "-1", "--producer-props", f"bootstrap.servers={urlsplit(url).netloc}", "acks=all"]
        pattern = r"records sent, ([\d.]+) records/sec"  # not shown: the tool's words
        return await warmed_up(command, pattern, KAFKA_WINDOWS)


async def rabbitmq(url: str) -> float:
    """Return how many persistent messages per second a RabbitMQ confirms to its PerfTest."""
    command = load_tools.java(load_tools.RABBITMQ)
    parts = urlsplit(url)
    named = url if parts.path.strip("/") else parts._replace(path="/%2f").geturl()  # Java's client takes "/" for none
    command += ["--uri", named, "--queue", fresh("flood"), "--auto-delete", "false", "--flag", "persistent"]
    command += ["--producers", "1", "--consumers", "0", "--confirm", str(IN_FLIGHT), "--size", str(OCTETS)]
    command += ["--queue-args", "x-expires=30000"]  # ms without a consumer, until RabbitMQ deletes the queue
    return await warmed_up(command, r"confirmed: ([\d,]+) msg/s", RABBITMQ_WINDOWS)


TOOLS: Mapping[str, Callable[[str], Awaitable[float]]] = {
    "Redis Pub/Sub": pubsub,
    "Redis Streams": streams,  # not shown: a product's name
    "RabbitMQ": rabbitmq,
    "Kafka": kafka,
}
