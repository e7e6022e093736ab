"""Where an engine keeps messages, by one setting each: create it, publish to it, and count what a fault has left.

store = QueueStore(url, "quorum")
await store.create()
async with store.published(200) as confirmed:
    engine.kill()                       # the publisher is still connected, as it would be
await engine.restart()
await store.left()
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiormq.exceptions import AMQPError
from redis.asyncio import Redis

from chatlab.lab.experiments.trials.clients import PATIENCE, Queue, fresh
from chatlab.retry import Backoff, Retry

__all__ = ["QueueStore", "Store", "StreamStore", "TopicStore"]

RETURN_SECONDS = 3.0  # without a message from a queue: after a restart it may take a moment to elect its leader
AFTER_A_START = Backoff(0.05, 0.5)  # a server accepts clients before all of its queues and topics are there
CLOSE_SECONDS = 2.0  # for a client whose server is dead


class Store(Protocol):
    """One place for messages, and one way to publish to it; `confirms`: whether the publisher waits for each."""

    confirms: bool

    async def create(self) -> None:
        """Create it, before the fault."""

    def published(self, messages: int, pace: float = 0) -> contextlib.AbstractAsyncContextManager[int]:
        """Publish one by one, `pace` seconds apart; yield how many were confirmed, while still connected."""

    async def left(self) -> int:
        """Return how many messages are there."""


async def publish_each(publish: Callable[[bytes], Awaitable[object]], messages: int, pace: float) -> None:
    """Publish the numbers 0, 1, 2, … one after another."""
    began = time.monotonic()
    for number in range(messages):
        await publish(b"%d" % number)
        if pace:
            await asyncio.sleep(began + (number + 1) * pace - time.monotonic())


async def close(closing: Awaitable[object]) -> None:
    """Close a client whose server may be dead."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(closing, CLOSE_SECONDS)


class StreamStore:
    """A stream of Redis; how much of it is on disk is a setting of the server."""

    confirms = True

    def __init__(self, url: str) -> None:
        self._url, self._key = url, fresh("kept")

    async def create(self) -> None:
        """Do nothing: the first entry creates a stream."""

    @contextlib.asynccontextmanager
    async def published(self, messages: int, pace: float = 0) -> AsyncIterator[int]:
        """Publish with XADD, whose reply is the confirmation."""
        redis = Redis.from_url(self._url)
        try:
            await publish_each(lambda body: redis.xadd(self._key, {"body": body}), messages, pace)
            yield messages
        finally:
            await close(redis.aclose())

    async def left(self) -> int:
        """Count with XLEN."""
        async with Redis.from_url(self._url) as redis:
            return int(await redis.xlen(self._key))


class QueueStore:
    """A durable queue of RabbitMQ of the type "classic", "quorum" or "stream"."""

    def __init__(self, url: str, type_: str, *, persistent: bool = True, confirms: bool = True) -> None:
        self._url, self._name, self._type, self.confirms = url, fresh("kept"), type_, confirms
        self._mode = aio_pika.DeliveryMode.PERSISTENT if persistent else aio_pika.DeliveryMode.NOT_PERSISTENT

    async def create(self) -> None:
        """Declare the queue."""
        async with await aio_pika.connect(self._url) as connection, connection.channel() as channel:
            await channel.declare_queue(self._name, durable=True, arguments={"x-queue-type": self._type})

    @contextlib.asynccontextmanager
    async def published(self, messages: int, pace: float = 0) -> AsyncIterator[int]:
        """Publish; with confirms each publish returns when RabbitMQ has confirmed it."""
        connection = await aio_pika.connect(self._url)
        try:
            channel = await connection.channel(publisher_confirms=self.confirms)

            async def publish(body: bytes) -> None:
                message = aio_pika.Message(body, delivery_mode=self._mode)
                await channel.default_exchange.publish(message, self._name)

            await publish_each(publish, messages, pace)
            yield messages if self.confirms else 0
        finally:
            await close(connection.close())

    async def left(self) -> int:
        """Read the queue from its beginning. One that RabbitMQ cannot open any more has nothing left."""
        with contextlib.suppress(AMQPError):
            async for attempt in Retry(on=AMQPError, backoff=AFTER_A_START, within=PATIENCE):
                with attempt:
                    async with await aio_pika.connect(self._url) as connection, connection.channel() as channel:
                        return await self._read(channel)
        return 0

    async def _read(self, channel: AbstractChannel) -> int:
        queue = Queue(channel, await channel.get_queue(self._name))
        offset = {"x-stream-offset": "first"} if self._type == "stream" else {}
        return len(await queue.read(1 << 20, offset, RETURN_SECONDS))


class TopicStore:
    """A topic of Kafka with one partition; `acks` is the publisher's setting, `settings` are the topic's."""

    def __init__(self, url: str, acks: int | str, settings: Mapping[str, str] | None = None) -> None:
        self._servers, self._name, self._acks = urlsplit(url).netloc, fresh("kept"), acks
        self.confirms = acks != 0
        self._settings = dict(settings or {})

    async def create(self) -> None:
        """Create the topic, and wait until it can be published to."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(self._name, 1, 1, topic_configs=self._settings)])
        finally:
            await admin.close()

    @contextlib.asynccontextmanager
    async def published(self, messages: int, pace: float = 0) -> AsyncIterator[int]:
        """Publish each message by itself; with acks=0 Kafka confirms nothing."""
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks=self._acks)
        await producer.start()
        try:
            await publish_each(lambda body: producer.send_and_wait(self._name, body), messages, pace)
            yield messages if self.confirms else 0
        finally:
            await close(producer.stop())

    async def left(self) -> int:
        """Return the distance between the partition's offsets."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers)
        await consumer.start()
        try:
            async for attempt in Retry(on=KafkaError, backoff=AFTER_A_START, within=PATIENCE):
                with attempt:
                    return await self._extent(consumer)
        finally:
            await consumer.stop()
        raise AssertionError("the last attempt returns or raises")  # not shown: unreachable

    async def _extent(self, consumer: AIOKafkaConsumer) -> int:
        partition = TopicPartition(self._name, 0)
        first, end = await consumer.beginning_offsets([partition]), await consumer.end_offsets([partition])
        return int(end[partition] - first[partition])
