"""Kafka: an append-only log that everybody reads at a pace of their own.

A topic of ours is a topic of Kafka's with one partition, since order holds within a partition only; its name is escaped
where Kafka allows less than we do. The producer is idempotent, so what it sends again after a broken connection is
stored once. A subscription is a consumer at an offset; it goes on from there when the broker comes back. A record's id
is its offset counted from 1, "5-0", so that "0-0" is before all. Each subscription has connections of its own: fine for
tens of topics, too dear for thousands. Left out: more partitions, transactions, compaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError, TopicAlreadyExistsError, for_code

from chatlab.brokers.inbox import Inbox, end_task, heard
from chatlab.brokers.names import escaped, parse_id
from chatlab.brokers.port import BEGINNING, Delivery
from chatlab.errors import BrokerError, BrokerUnavailable, SubscriptionLost

log = logging.getLogger(__name__)

MAX_REQUEST = 2 << 20  # octets: a body of 1 MiB and its wrapping
MAX_NAME = 249  # characters
BATCH = 512
PROBE = 1.0  # seconds between two looks at whether the broker answers
LOST = (KafkaError, OSError)


class KafkaBroker:
    """One producer, and a consumer for each subscription.

    `patience`: seconds a publish waits for a broker that is away. `takeover_after`: seconds of silence after which a
    group gives a member's work to another. `replication`: on how many nodes of a cluster a new topic is kept.
    """

    resumes = True

    def __init__(self, url: str, *, patience: float = 10, takeover_after: float = 10, replication: int = 1) -> None:
        parts = urlsplit(url)
        self._servers = parts.netloc.rpartition("@")[2]
        self._patience = patience
        self._takeover_after = takeover_after
        self._replication = replication
        self._client: dict[str, Any] = {"bootstrap_servers": self._servers, "request_timeout_ms": int(patience * 1000)}
        if parts.username:
            self._client |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
            self._client |= {"sasl_plain_username": parts.username, "sasl_plain_password": parts.password}
        self._order = asyncio.Lock()  # fair: who asks first is appended first
        self._producer: AIOKafkaProducer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._created: set[str] = set()
        self._readers: set[LogSubscription] = set()
        self._answers = False
        self._probe: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker answered when last asked, at most a second or two ago."""
        return self._answers

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        self._producer = AIOKafkaProducer(
            **self._client, enable_idempotence=True, max_request_size=MAX_REQUEST, max_batch_size=MAX_REQUEST
        )
        self._admin = AIOKafkaAdminClient(**self._client)
        try:
            await self._producer.start()
            await self._admin.start()
        except LOST as error:
            await self.aclose()
            raise BrokerUnavailable(f"the broker at kafka://{self._servers} does not answer: {error}") from error
        self._answers = True
        self._probe = heard(asyncio.create_task(self._look(), name="kafka probe"), lambda: self._readers)

    async def publish(self, topic: str, body: bytes) -> str:
        """Append one record; return its id when the broker has it. Raises BrokerUnavailable."""
        begun = False
        try:
            async with asyncio.timeout(self._patience):
                async with self._order:
                    name = await self._topic(topic)
                    assert self._producer is not None
                    begun = True
                    sent = await self._producer.send(name, body, partition=0)
                appended = await sent
        except LOST as error:  # TimeoutError is an OSError
            raise BrokerUnavailable(
                f"the broker did not confirm the message: {error!r}", outcome_unknown=begun
            ) from error
        return identifier(appended.offset)

    async def subscribe(self, topic: str, *, after: str | None = None) -> LogSubscription:
        """Read from now on, or what comes after the id `after`. Raises ValueError if that is no id."""
        offset = None if after is None else parse_id(after)[0]
        partition = TopicPartition(await self._topic(topic), 0)
        consumer = AIOKafkaConsumer(**self._client, auto_offset_reset="none", max_partition_fetch_bytes=MAX_REQUEST)
        subscription = LogSubscription(topic, partition, consumer, self._readers.discard)
        try:
            await consumer.start()
            consumer.assign([partition])
            if offset is None:
                offset = (await consumer.end_offsets([partition]))[partition]
            elif after == BEGINNING:
                offset = (await consumer.beginning_offsets([partition]))[partition]
            consumer.seek(partition, offset)
        except BaseException as error:
            await consumer.stop()
            if isinstance(error, LOST):
                raise BrokerUnavailable(f"cannot read {topic}: {error!r}") from error
            raise
        subscription.start()
        self._readers.add(subscription)
        return subscription

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Delivery]:
        """The records kept after `after`, oldest first; with `limit` the newest so many."""
        first, end = await self._bounds(topic)
        start = max(parse_id(after)[0], first, 0 if limit is None else end - limit)
        records: list[Delivery] = []
        if start < end:
            subscription = await self.subscribe(topic, after=identifier(start - 1))
            while len(records) < end - start:
                records += await subscription.batch()
            await subscription.aclose()
        return records[: end - start]

    async def oldest(self, topic: str) -> str | None:
        """The id of the first record still kept; None if there is none."""
        first, end = await self._bounds(topic)
        return identifier(first) if first < end else None

    def is_before(self, one: str, other: str) -> bool:
        """Whether the id `one` comes before `other`."""
        return parse_id(one) < parse_id(other)

    async def create_group(self, topic: str, group: str) -> None:
        """Write down where `group` begins, if that is not known yet: at what is published from now on."""
        partition = TopicPartition(await self._topic(topic), 0)
        await self._begin_group(partition, self._settings(partition, group))

    def _settings(self, partition: TopicPartition, group: str) -> dict[str, Any]:
        name = f"{partition.topic}-{escaped(group, MAX_NAME)}"
        return {**self._client, "group_id": name, "enable_auto_commit": False}

    async def join(self, topic: str, group: str, member: str) -> WorkerSubscription:
        """Join `group`. With one partition, one member works at a time; the others stand by to take over."""
        partition = TopicPartition(await self._topic(topic), 0)
        session = int(self._takeover_after * 1000)
        settings = self._settings(partition, group)
        await self._begin_group(partition, settings)
        consumer = AIOKafkaConsumer(
            **settings,
            client_id=member,
            auto_offset_reset="earliest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 4,
            max_partition_fetch_bytes=MAX_REQUEST,
        )
        worker = WorkerSubscription(topic, partition, consumer, self._readers.discard)
        try:
            await consumer.start()
        except LOST as error:
            await consumer.stop()
            raise BrokerUnavailable(f"cannot join {group}: {error!r}") from error
        consumer.subscribe([partition.topic], listener=Rebalance(worker))
        worker.start()
        self._readers.add(worker)
        return worker

    async def aclose(self) -> None:
        """End every subscription and connection."""
        self._answers = False
        await end_task(self._probe)
        for reader in list(self._readers):
            await reader.aclose()
        if self._producer is not None:
            await self._producer.stop()
        if self._admin is not None:
            await self._admin.close()
        self._producer = self._admin = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _topic(self, topic: str) -> str:
        """Kafka's name for a topic, which is made if it is missing."""
        if self._admin is None:
            raise BrokerUnavailable("this broker is closed", outcome_unknown=False)
        name = escaped(topic, MAX_NAME)
        if name not in self._created:
            try:
                made = await self._admin.create_topics(
                    [NewTopic(name, num_partitions=1, replication_factor=self._replication)]
                )
            except LOST as error:
                raise BrokerUnavailable(f"cannot make the topic {topic}: {error!r}") from error
            for _, code, *why in made.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise BrokerError(f"cannot make the topic {topic}: {for_code(code).__name__} {why}")
            self._created.add(name)
        return name

    async def _bounds(self, topic: str) -> tuple[int, int]:
        """The offset of the first record kept, and the one the next record will get."""
        partition = TopicPartition(await self._topic(topic), 0)
        asker = AIOKafkaConsumer(**self._client)
        try:
            await asker.start()
            first = await asker.beginning_offsets([partition])
            end = await asker.end_offsets([partition])
        except LOST as error:
            raise BrokerUnavailable(f"cannot read {topic}: {error!r}") from error
        finally:
            await asker.stop()
        return first[partition], end[partition]

    async def _begin_group(self, partition: TopicPartition, settings: dict[str, Any]) -> None:
        """Write down where a new group begins: at what is published from now on."""
        founder = AIOKafkaConsumer(**settings)
        try:
            await founder.start()
            founder.assign([partition])
            if await founder.committed(partition) is None:
                end = await founder.end_offsets([partition])
                with contextlib.suppress(KafkaError):  # another member was faster
                    await founder.commit({partition: end[partition]})
        except LOST as error:
            raise BrokerUnavailable(f"cannot join: {error!r}") from error
        finally:
            await founder.stop()

    async def _look(self) -> None:
        while True:
            assert self._producer is not None
            try:
                await self._producer.client.fetch_all_metadata()
                self._answers = True
            except LOST:
                self._answers = False
            await asyncio.sleep(PROBE)


class LogSubscription(Inbox):
    """A place in the log. A pump fetches more when all it fetched has been handed out."""

    def __init__(
        self, topic: str, partition: TopicPartition, consumer: AIOKafkaConsumer, forget: Callable[[Any], None]
    ) -> None:
        super().__init__(topic)
        self._partition = partition
        self._consumer = consumer
        self._forget = forget
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch when somebody asks for records."""
        task = asyncio.create_task(self._pump(), name=f"kafka reader of {self.topic}")
        self._task = heard(task, lambda: [self])

    async def batch(self, limit: int = 512) -> Sequence[Delivery]:
        """Wait for records, then return those that are here; empty once it is closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            self._emptied.set()
            await self.changed()
        return here

    async def aclose(self) -> None:
        """Stop reading."""
        self.discard()
        self._forget(self)
        await end_task(self._task)
        await self._consumer.stop()

    async def _pump(self) -> None:
        try:
            while True:
                await self._emptied.wait()
                self._emptied.clear()
                while not len(self):
                    fetched = await self._consumer.getmany(timeout_ms=1000, max_records=BATCH)
                    for records in fetched.values():
                        self.put([Delivery(self.topic, identifier(r.offset), r.value or b"") for r in records])
        except OffsetOutOfRangeError as error:
            self.end(SubscriptionLost(f"the log of {self.topic} was trimmed past its reader: {error}"))
        except LOST as error:
            self.end(SubscriptionLost(f"cannot read {self.topic} any more: {error!r}"))


class WorkerSubscription(LogSubscription):
    """A member of a group. Kafka keeps one offset: what is acknowledged out of order waits for what is before it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: deque[int] = deque()  # offsets handed to this member, oldest first
        self._done: set[int] = set()  # those among them that are acknowledged

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """What Kafka gave to this member."""
        self._open.extend(offset(delivery.id) for delivery in deliveries)
        super().put(deliveries)

    async def ack(self, delivery: Delivery) -> None:
        """The work is done. Raises BrokerUnavailable if it was given to another member, or cannot be written down."""
        self._done.add(offset(delivery.id))
        reached = None
        while self._open and self._open[0] in self._done:
            reached = self._open.popleft() + 1
            self._done.remove(reached - 1)
        if reached is not None:
            try:
                await self._consumer.commit({self._partition: reached})
            except (*LOST, IllegalStateError) as error:
                raise BrokerUnavailable(f"the record may come again, to another member: {error!r}") from error

    def lose_work(self) -> None:
        """The group has changed: what was not acknowledged comes again, here or elsewhere."""
        self._waiting.clear()
        self._open.clear()
        self._done.clear()


class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells a worker when its group changes."""

    def __init__(self, worker: WorkerSubscription) -> None:
        self._worker = worker

    def on_partitions_revoked(self, revoked: object) -> None:
        """Before the change."""
        self._worker.lose_work()

    def on_partitions_assigned(self, assigned: object) -> None:
        """After it: this member goes on from what was acknowledged last."""


def identifier(at: int) -> str:
    """The id of the record at an offset."""
    return f"{at + 1}-0"


def offset(of: str) -> int:
    """The offset of the record with an id."""
    return parse_id(of)[0] - 1
