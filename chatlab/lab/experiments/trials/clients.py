"""What an engine can do, tried with its own client: one class an engine, one method an ability.

Every method runs a trial and returns what happened, so it can fail; the arguments of the classes leave out what the
ability depends on: `RabbitMQ(url, queue="classic")` has no late readers, `Kafka(url, partitions=1)` shares no work.
Each trial uses names of its own. Left out: what the port has a call for (`brokers/port.py`), and clusters.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractQueue
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiormq.exceptions import ChannelInvalidStateError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

__all__ = ["Engine", "Kafka", "Post", "PubSub", "RabbitMQ", "Streams", "fresh"]

PATIENCE = 10.0
SILENCE = 0.4  # seconds without a message after which no more are expected
FAILURES = 3  # deliveries that a worker does not finish
Seen = Mapping[str, list[bytes]]


class Post(Protocol):
    """A queue, stream, channel or topic to publish to, with the engine's own means, if it has them."""

    async def publish(
        self, body: bytes, *, urgent: bool = False, lifetime: float | None = None, delay: float | None = None
    ) -> None:
        """Publish, with a priority, a time after which the message is removed, or a time before it is delivered."""

    async def read(self, messages: int) -> list[bytes]:
        """Return what a reader receives that subscribes now: at most `messages`, or until none arrives any more."""

    async def fail(self) -> list[bytes]:
        """Take the first message and fail to process it `FAILURES` times; return what the engine then set aside."""


class Engine(Protocol):
    """The abilities that are tried on each engine."""

    async def late_readers(self, messages: int, readers: int) -> list[int]:
        """Return how many of `messages`, published before, each reader receives."""

    async def shares_work(self) -> bool:
        """Return whether, while one worker of a group processes a message, another worker receives the next."""

    async def matches(self) -> bool:
        """Return whether one reader receives chat.seoul and chat.busan, and not news.seoul."""

    def post(self) -> contextlib.AbstractAsyncContextManager[Post]:
        """Return where to publish messages with a priority, a lifetime or a delay."""


def fresh(name: str) -> str:
    """Return an unused name."""
    return f"{name}.{uuid.uuid4().hex[:8]}"


def one_each(seen: Seen) -> bool:
    """Return whether two workers received one message each, and not the same."""
    one, other = seen.values()
    return len(one) == len(other) == 1 and one != other


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Return whether a condition, which nothing signals, comes true in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # clients fill the lists in their own ways; none signals it
                await asyncio.sleep(0.01)
            return True
    return False


async def collected(receive: Callable[[], Awaitable[bytes]], at_most: int, silence: float = SILENCE) -> list[bytes]:
    """Receive until there are `at_most`, or until nothing arrives for `silence` seconds."""
    bodies: list[bytes] = []
    with contextlib.suppress(TimeoutError):
        while len(bodies) < at_most:
            async with asyncio.timeout(silence):
                bodies.append(await receive())
    return bodies


def cities() -> tuple[str, dict[str, bytes]]:
    """Return an unused first word, and a body for each of three topics, of which the second does not start with it."""
    chat = f"chat{uuid.uuid4().hex[:8]}"
    return chat, {f"{chat}.seoul": b"1", f"{chat}news.seoul": b"2", f"{chat}.busan": b"3"}


# --- RabbitMQ --------------------------------------------------------------------------------------------------------


class RabbitMQ:
    """AMQP. `late`, `work`: the types of queue for late readers and for workers; `rules`: whether queues have rules."""

    def __init__(self, url: str, *, late: str = "stream", work: str = "quorum", rules: bool = True) -> None:
        self._url, self._late, self._work, self._rules = url, late, work, rules

    @contextlib.asynccontextmanager
    async def _queue(self, type_: str, rules: Mapping[str, Any] | None = None) -> AsyncIterator[Queue]:
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            arguments = {"x-queue-type": type_, **(rules or {})}
            queue = await channel.declare_queue(fresh("trial"), durable=True, arguments=arguments)
            try:
                yield Queue(channel, queue)
            finally:
                await queue.delete(if_unused=False, if_empty=False)

    async def late_readers(self, messages: int, readers: int) -> list[int]:
        """Read a stream queue from its first offset; the other types give each message to one reader only."""
        async with self._queue(self._late) as queue:
            await asyncio.gather(*(queue.publish(b"%d" % number) for number in range(messages)))
            offset = {"x-stream-offset": "first"} if self._late == "stream" else {}
            return [len(await queue.read(messages, offset)) for __ in range(readers)]

    async def shares_work(self) -> bool:
        """Let two consumers of one queue each hold a message without acknowledging it."""
        async with self._queue(self._work) as queue, queue.consumer() as one, queue.consumer() as two:
            await queue.publish(b"first")
            await queue.publish(b"second")
            seen: dict[str, list[bytes]] = {"one": [], "two": []}
            for name, consumer in zip(seen, (one, two), strict=True):
                seen[name] += await collected(lambda consumer=consumer: received(consumer), 1)  # type: ignore[misc]
            return one_each(seen)

    async def matches(self) -> bool:
        """Bind a queue to the exchange amq.topic with the pattern `chat.*`."""
        async with self._queue("classic") as queue:
            chat, bodies = cities()
            exchange = await queue.channel.get_exchange("amq.topic")
            await queue.queue.bind(exchange, f"{chat}.*")
            for topic, body in bodies.items():
                await exchange.publish(aio_pika.Message(body), topic)
            return await queue.read(3) == [b"1", b"3"]

    @contextlib.asynccontextmanager
    async def post(self) -> AsyncIterator[Post]:
        """Yield a queue with two priorities, and a queue for what it rejects."""
        async with self._queue("classic") as aside:
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": aside.queue.name}
            limited = {**dead, "x-delivery-limit": FAILURES - 1}
            rules = ({"x-max-priority": 1}, limited) if self._rules else ({}, {})
            async with self._queue("classic", rules[0]) as queue, self._queue("quorum", rules[1]) as failing:
                yield QueuePost(queue, failing, aside, rules=self._rules)


async def received(consumer: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage]) -> bytes:
    """Return the body of the next message."""
    return (await consumer.get()).body


class Queue:
    """A queue of RabbitMQ, and the channel it was declared on."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self.channel, self.queue = channel, queue

    async def publish(self, body: bytes, **properties: Any) -> None:
        """Publish to this queue alone, and wait for the confirm."""
        await self.channel.default_exchange.publish(aio_pika.Message(body, **properties), self.queue.name)

    @contextlib.asynccontextmanager
    async def consumer(
        self, prefetch: int = 1, arguments: Mapping[str, Any] | None = None
    ) -> AsyncIterator[asyncio.Queue[aio_pika.abc.AbstractIncomingMessage]]:
        """Consume on a channel of its own; yield where the messages arrive."""
        arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        await self.channel.set_qos(prefetch)
        tag = await self.queue.consume(arrived.put, arguments=dict(arguments or {}))
        try:
            yield arrived
        finally:
            with contextlib.suppress(ChannelInvalidStateError):  # RabbitMQ has closed it
                await self.queue.cancel(tag)

    async def read(
        self, messages: int, arguments: Mapping[str, Any] | None = None, silence: float = SILENCE
    ) -> list[bytes]:
        """Consume and acknowledge at most `messages`, until none arrives for `silence` seconds."""
        async with self.consumer(100, arguments) as arrived:

            async def receive() -> bytes:
                message = await arrived.get()
                await message.ack()
                return message.body

            return await collected(receive, messages, silence)


class QueuePost:
    """RabbitMQ's means: `x-max-priority`, `expiration`, `x-delivery-limit`, and dead letters that are delivered."""

    def __init__(self, queue: Queue, failing: Queue, aside: Queue, *, rules: bool) -> None:
        self._queue, self._failing, self._aside, self._rules = queue, failing, aside, rules

    async def publish(
        self, body: bytes, *, urgent: bool = False, lifetime: float | None = None, delay: float | None = None
    ) -> None:
        """Publish; a delayed message waits in a queue of its own, and is delivered as that queue's dead letter."""
        if delay is None or not self._rules:
            lifetime = lifetime if self._rules else None
            await self._queue.publish(body, priority=int(urgent), expiration=lifetime)
            return
        target = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self._queue.queue.name}
        waiting = await self._queue.channel.declare_queue(
            fresh("waiting"), arguments={**target, "x-expires": int(1000 * (delay + PATIENCE))}
        )
        await Queue(self._queue.channel, waiting).publish(body, expiration=delay)

    async def read(self, messages: int) -> list[bytes]:
        """Consume and acknowledge."""
        return await self._queue.read(messages)

    async def fail(self) -> list[bytes]:
        """Return a message to a quorum queue, which counts the deliveries, until it is set aside."""
        await self._failing.publish(b"poison")
        async with self._failing.consumer() as arrived:
            for __ in range(FAILURES):
                async with asyncio.timeout(PATIENCE):
                    message = await arrived.get()
                await message.nack(requeue=True)
            return await self._aside.read(1)


# --- Kafka -----------------------------------------------------------------------------------------------------------


class Kafka:
    """A topic with `partitions`, which late readers read from the `offset`: "earliest" or "latest"."""

    def __init__(self, url: str, *, partitions: int = 2, offset: str = "earliest") -> None:
        self._servers, self._partitions, self._offset = urlsplit(url).netloc, partitions, offset

    @contextlib.asynccontextmanager
    async def topic(self, name: str = "", settings: Mapping[str, str] | None = None) -> AsyncIterator[Topic]:
        """Create a topic, and yield it with a producer; delete it afterwards."""
        name = name or fresh("trial")
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        producer = AIOKafkaProducer(bootstrap_servers=self._servers)
        await admin.start()
        await producer.start()
        try:
            new = NewTopic(name, self._partitions, 1, topic_configs=dict(settings or {}))
            for __, code, *reason in (await admin.create_topics([new])).topic_errors:
                if code:
                    raise for_code(code)(*reason)
            await producer.partitions_for(name)
            yield Topic(name, self._servers, producer)
            await admin.delete_topics([name])
        finally:
            await producer.stop()
            await admin.close()

    async def late_readers(self, messages: int, readers: int) -> list[int]:
        """Read from the offset, each reader for itself."""
        async with self.topic() as topic:
            for number in range(messages):
                await topic.publish(b"%d" % number)
            return [len(await topic.read(messages, self._offset)) for __ in range(readers)]

    async def shares_work(self) -> bool:
        """Publish one message to the first and one to the last partition, for a group of two consumers."""
        async with self.topic() as topic, topic.member("workers") as one, topic.member("workers") as two:
            shared = await until(lambda: all(each.assignment() for each in (one, two)), 3)
            seen: dict[str, list[bytes]] = {"one": [], "two": []}
            await topic.publish(b"first", 0)
            await topic.publish(b"second", self._partitions - 1)
            for name, consumer in zip(seen, (one, two), strict=True):
                seen[name] += await topic.fetched(consumer, 2, 3 if shared else SILENCE, enough=1 if shared else 2)
            return one_each(seen)

    async def matches(self) -> bool:
        """Subscribe to a regular expression, which selects existing topics by name."""
        chat, bodies = cities()
        async with contextlib.AsyncExitStack() as topics:
            for name, body in bodies.items():
                topic = await topics.enter_async_context(self.topic(name))
                await topic.publish(body)
            consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, auto_offset_reset="earliest")
            consumer.subscribe(pattern=f"^{chat}\\.")
            await consumer.start()
            try:
                return sorted(await topic.fetched(consumer, 3, 1.5)) == [b"1", b"3"]
            finally:
                await consumer.stop()

    @contextlib.asynccontextmanager
    async def post(self) -> AsyncIterator[Post]:
        """Yield a topic of one partition, so that its order is known."""
        async with Kafka(f"kafka://{self._servers}", partitions=1).topic() as topic:
            yield topic


class Topic:
    """A topic. A record has no priority, no lifetime and no delay: those arguments of `publish` have no counterpart."""

    def __init__(self, name: str, servers: str, producer: AIOKafkaProducer) -> None:
        self.name, self._servers, self._producer = name, servers, producer

    async def publish(
        self,
        body: bytes,
        partition: int | None = None,
        *,
        urgent: bool = False,
        lifetime: float | None = None,
        delay: float | None = None,
    ) -> None:
        """Publish, and wait until Kafka has confirmed."""
        await self._producer.send_and_wait(self.name, body, partition=partition)

    @contextlib.asynccontextmanager
    async def member(self, group: str) -> AsyncIterator[AIOKafkaConsumer]:
        """Yield a consumer that shares the partitions with the other members of its group."""
        consumer = AIOKafkaConsumer(
            self.name,
            bootstrap_servers=self._servers,
            group_id=f"{self.name}.{group}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            heartbeat_interval_ms=100,  # how soon a member notices that another has joined
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def read(self, messages: int, offset: str = "earliest") -> list[bytes]:
        """Read every partition up to its end, as a consumer without a group."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers)
        await consumer.start()
        try:
            numbers = await self._producer.partitions_for(self.name)
            partitions = [TopicPartition(self.name, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            await (consumer.seek_to_beginning if offset == "earliest" else consumer.seek_to_end)(*partitions)
            return await self.fetched(consumer, messages, PATIENCE if offset == "earliest" else SILENCE)
        finally:
            await consumer.stop()

    async def fetched(
        self, consumer: AIOKafkaConsumer, at_most: int, seconds: float, *, enough: int | None = None
    ) -> list[bytes]:
        """Fetch until there are `enough`, at most for that many seconds."""
        bodies: list[bytes] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(bodies) < (enough or at_most):
                    for records in (await consumer.getmany(timeout_ms=100, max_records=at_most)).values():
                        bodies += [record.value for record in records]
        return bodies

    async def fail(self) -> list[bytes]:
        """Read the same record again and again without committing it: Kafka does not count, and sets nothing aside."""
        await self.publish(b"poison")
        for __ in range(FAILURES):
            async with self.member("workers") as worker:
                await self.fetched(worker, 1, PATIENCE)
        return [] if await self.read(1) else [b"poison"]


# --- Redis -----------------------------------------------------------------------------------------------------------


class Streams:
    """Redis Streams, read after the id `after`: "0" is the beginning, "$" the end."""

    def __init__(self, url: str, *, after: str = "0") -> None:
        self._url, self._after = url, after

    async def late_readers(self, messages: int, readers: int) -> list[int]:
        """Read with XREAD."""
        async with self.post() as stream:
            for number in range(messages):
                await stream.publish(b"%d" % number)
            return [len(await stream.read(messages)) for __ in range(readers)]

    async def shares_work(self) -> bool:
        """Let two consumers of a group each read one entry with XREADGROUP, and acknowledge none."""
        async with self.post() as stream:
            await stream.publish(b"first")
            await stream.publish(b"second")
            await stream.redis.xgroup_create(stream.key, "workers", "0")
            return one_each({name: await stream.read_as(name, 1) for name in ("one", "two")})

    async def matches(self) -> bool:
        """Read a key with a star in it: XREAD takes it for the name of one stream."""
        chat, bodies = cities()
        async with Redis.from_url(self._url) as redis:
            for key, body in bodies.items():
                await redis.xadd(key, {"body": body})
            try:
                found = await redis.xread({f"{chat}.*": "0"})
                return sorted(bodies_of(found)) == [b"1", b"3"]
            finally:
                await redis.delete(*bodies)

    @contextlib.asynccontextmanager
    async def post(self) -> AsyncIterator[Stream]:
        """Yield a stream."""
        async with Redis.from_url(self._url) as redis:
            stream = Stream(redis, fresh("trial"), self._after)
            try:
                yield stream
            finally:
                await redis.delete(stream.key)


def bodies_of(answer: Any) -> list[bytes]:
    """Return the bodies in an answer to XREAD or XREADGROUP, in either version of Redis's protocol."""
    streams = answer.items() if isinstance(answer, Mapping) else answer or []
    entries = [entry for __, found in streams for entry in flat(found)]
    return [fields[b"body"] for __, fields in entries]


def flat(found: Sequence[Any]) -> list[Any]:
    """Return the entries of one stream, which the client nests once more in version 3 of the protocol."""
    return [entry for page in found for entry in page] if found and isinstance(found[0], list) else list(found)


class Stream:
    """A stream. An entry has no priority, lifetime or delay: those arguments of `publish` have no counterpart."""

    def __init__(self, redis: Redis, key: str, after: str) -> None:
        self.redis, self.key, self._after = redis, key, after

    async def publish(
        self, body: bytes, *, urgent: bool = False, lifetime: float | None = None, delay: float | None = None
    ) -> None:
        """Append with XADD; an urgent entry asks for an id before all others, which Redis refuses."""
        if urgent:
            with contextlib.suppress(ResponseError):
                await self.redis.xadd(self.key, {"body": body}, id="0-1")
                return
        await self.redis.xadd(self.key, {"body": body})

    async def read(self, messages: int) -> list[bytes]:
        """Read with XREAD."""
        return bodies_of(await self.redis.xread({self.key: self._after}, count=messages))

    async def read_as(self, consumer: str, messages: int) -> list[bytes]:
        """Read new entries with XREADGROUP, as a consumer of the group `workers`."""
        return bodies_of(await self.redis.xreadgroup("workers", consumer, {self.key: ">"}, count=messages))

    async def fail(self) -> list[bytes]:
        """Claim an entry again and again: Redis counts, and leaves it to the reader to act on the count."""
        await self.publish(b"poison")
        await self.redis.xgroup_create(self.key, "workers", "0")
        await self.read_as("one", 1)
        for __ in range(FAILURES):
            await self.redis.xautoclaim(self.key, "workers", "one", 0)
        pending = await self.redis.xpending(self.key, "workers")
        return [] if pending["pending"] else [b"poison"]


class PubSub:
    """Redis Pub/Sub; `sharded`: with SSUBSCRIBE and SPUBLISH (Redis 7), which a cluster spreads over its servers."""

    def __init__(self, url: str, *, sharded: bool = False) -> None:
        self._url, self._publish = url, "SPUBLISH" if sharded else "PUBLISH"

    async def reaches_everybody(self, subscribe: str = "") -> bool:
        """Return whether two subscribers both receive a message; `subscribe` may be a command that does not match."""
        async with Redis.from_url(self._url) as redis, redis.pubsub() as one, redis.pubsub() as two:
            channel = fresh("trial")
            try:
                for each in (one, two):
                    await self._subscribe(each, channel, subscribe)
                await self._send(redis, channel, b"for all")
            except ResponseError:  # Redis 6 does not know the commands
                return False
            return [await heard(each, 1) for each in (one, two)] == [[b"for all"], [b"for all"]]

    async def _send(self, redis: Any, channel: str, body: bytes) -> None:
        await redis.execute_command(self._publish, channel, body)

    async def _subscribe(self, listener: Any, channel: str, command: str = "") -> None:
        await listener.execute_command(command or self._publish.replace("PUBLISH", "SUBSCRIBE"), channel)
        message = await listener.parse_response(timeout=PATIENCE)  # the server's confirmation
        assert message is not None

    async def late_readers(self, messages: int, readers: int) -> list[int]:
        """Publish, and subscribe then."""
        async with self.post() as channel:
            for number in range(messages):
                await channel.publish(b"%d" % number)
            return [len(await channel.read(messages)) for __ in range(readers)]

    async def shares_work(self) -> bool:
        """Subscribe twice: every subscriber receives everything."""
        async with Redis.from_url(self._url) as redis, redis.pubsub() as one, redis.pubsub() as two:
            channel = fresh("trial")
            for each in (one, two):
                await self._subscribe(each, channel)
            for body in (b"first", b"second"):
                await self._send(redis, channel, body)
            return one_each({"one": await heard(one, 2), "two": await heard(two, 2)})

    async def matches(self) -> bool:
        """Subscribe with PSUBSCRIBE, which takes glob patterns; there is none for sharded channels."""
        chat, bodies = cities()
        async with Redis.from_url(self._url) as redis, redis.pubsub() as listener:
            await self._subscribe(listener, f"{chat}.*", "PSUBSCRIBE")
            for channel, body in bodies.items():
                await self._send(redis, channel, body)
            return await heard(listener, 3) == [b"1", b"3"]

    @contextlib.asynccontextmanager
    async def post(self) -> AsyncIterator[Post]:
        """Yield a channel."""
        async with Redis.from_url(self._url) as redis:
            yield Channel(redis, fresh("trial"), self)


async def heard(listener: Any, messages: int) -> list[bytes]:
    """Return the bodies that arrive at a subscriber."""

    async def receive() -> bytes:
        while (message := await listener.parse_response(timeout=SILENCE)) is None:
            raise TimeoutError
        return bytes(message[-1])

    return await collected(receive, messages)


class Channel:
    """A channel keeps nothing, so that no argument of `publish` could have an effect on who subscribes later."""

    def __init__(self, redis: Redis, name: str, owner: PubSub) -> None:
        self._redis, self._name, self._owner = redis, name, owner

    async def publish(
        self, body: bytes, *, urgent: bool = False, lifetime: float | None = None, delay: float | None = None
    ) -> None:
        """Publish to whoever listens at this moment."""
        await self._redis.publish(self._name, body)

    async def read(self, messages: int) -> list[bytes]:
        """Subscribe, and return what arrives then."""
        async with self._redis.pubsub() as listener:
            await self._owner._subscribe(listener, self._name)
            return await heard(listener, messages)

    async def fail(self) -> list[bytes]:
        """A message cannot fail: nobody acknowledges it, and Redis has forgotten it."""
        await self.publish(b"poison")
        return await self.read(1)
