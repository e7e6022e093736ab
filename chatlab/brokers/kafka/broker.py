"""Kafka: an append-only log that each consumer reads at its own pace.

Each topic is a Kafka topic with one partition, because order holds only within a partition; characters that Kafka does
not allow in its name are escaped. The producer is idempotent, so what it resends after a broken connection is stored
once. A reader is a consumer at an offset; it resumes from there when the broker comes back.

A record's id is its offset counted from 1 and a number for its topic, "5-2348152116", so that "0-0" is before all. The
number changes if the topic is deleted and recreated, so that an id of the old topic is recognized (KIP-516).

A reader ends with `SubscriptionLost` if the next record was deleted, if its offset is beyond the end of the log, if its
topic was deleted (recreated or not), or if it may no longer read the topic. The topics in use are looked up once a
second: Kafka does not announce that a topic was deleted.

Each reader has separate connections: fine for tens of topics, too expensive for thousands. Left out: more partitions,
transactions, compaction; a log that lost its end in a power cut and grew past a reader's offset again before that
reader asks for more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Self, TypedDict, Unpack
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chatlab.brokers.inbox import Inbox
from chatlab.brokers.kafka.topics import Described, describe, fetching_failed, stop
from chatlab.brokers.names import escaped, parse_id
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.brokers.probe import PATIENCE, Probe
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks, cancel

log = logging.getLogger(__name__)

MAX_REQUEST = 2 << 20  # octets: a body of 1 MiB and its headers
MAX_NAME = 249  # characters
BATCH = 512
PROBE = 1.0  # seconds between two checks of the broker and the topics
PROBE_PATIENCE = 3.0  # seconds without an answer after which the broker counts as not connected
LOST = (KafkaError, OSError, ConsumerStoppedError)  # TimeoutError is an OSError


class ConsumerSettings(TypedDict, total=False):
    """The arguments of aiokafka's consumer that differ between readers."""

    group_id: str
    enable_auto_commit: bool
    client_id: str
    session_timeout_ms: int
    heartbeat_interval_ms: int


class KafkaBroker:
    """One producer, and a consumer for each reader.

    `patience`: seconds a publish waits for a broker that is away. `takeover_after`: seconds of silence after which a
    group gives a member's work to another. `replication`: the replication factor of new topics.
    """

    few_topics = True  # each reader has separate connections

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
        self._order = asyncio.Lock()  # fair: records are appended in the order of the calls
        self._producer: AIOKafkaProducer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._closed = True
        self._topics: dict[str, Described] = {}  # the existing ones, by their name in Kafka
        self._doubtful: set[str] = set()  # topics that had changed at the last check
        self._joined_groups: set[tuple[str, str]] = set()  # the groups joined here, by topic and name
        self._readers: set[LogReader] = set()
        self._answers = False
        self._tasks = Tasks(log)
        self._stopping = Tasks(log)  # consumers
        self._probe = Probe(self._try_to_read)

    @property
    def connected(self) -> bool:
        """Return whether the broker answered the last check, at most a second or two ago."""
        return self._answers and not self._tasks.fault

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
        self._closed, self._answers = False, True
        self._tasks.start(self._check(), name="kafka probe", on_failure=self._fail)

    async def publish(self, topic: str, body: bytes) -> str:
        """Append one record; return its id once the broker has it. Raises BrokerUnavailable."""
        sent = False
        try:
            async with asyncio.timeout(self._patience):
                async with self._order:
                    described = await self._topic(topic)
                    producer = self._open_producer()
                    sent = True
                    appending = await producer.send(described.name, body, partition=0)
                appended = await appending
        except LOST as error:
            if self._closed and not sent:
                raise BrokerClosed from error
            reason = f"the broker did not confirm the message: {error!r}"
            raise BrokerUnavailable(reason, outcome_unknown=sent) from error
        return identifier(appended.offset, described.incarnation)

    async def subscribe(self, topic: str, *, after: str | None = None) -> LogReader:
        """Read from now on, or after the id `after`. Raises ValueError if that is not an id.

        If records after `after` are no longer kept, or it is not an id of this log, the reader ends at once with
        SubscriptionLost, which says where to resume.
        """
        wanted = None if after is None else parse_id(after)
        described = await self._topic(topic, fresh=True)
        reader = LogReader(topic, described, self._consumer(), self._leave)
        log_now = await self._start(reader.consumer, f"cannot read {topic}", described)
        start = log_now.end if wanted is None else log_now.start(wanted)
        lost = None if wanted is None or after == BEGINNING else log_now.lost(wanted)
        if lost is None:
            reader.consumer.seek(reader.partition, start)
        else:
            reader.end(lost)
        self._begin(reader)
        return reader

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Record]:
        """Return the records kept after `after`, oldest first; with `limit`, only the newest `limit` of them."""
        wanted = parse_id(after)
        described = await self._topic(topic, fresh=True)
        async with self._reading(topic, described) as (consumer, log_now):
            start = max(log_now.start(wanted), 0 if limit is None else log_now.end - limit)
            return await self._range(consumer, topic, described, start, log_now.end) if start < log_now.end else []

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records kept after `after`, bounded in number and octets."""
        wanted = parse_id(after)
        described = await self._topic(topic, fresh=True)
        async with self._reading(topic, described) as (consumer, log_now):
            start = log_now.start(wanted)
            if start >= log_now.end:
                return Page([], False)
            return await self._first_page(consumer, topic, described, (start, log_now.end), limit, octets)

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more are kept after `after`.

        Offsets are counted: if some have no record (a transaction marker), fewer records follow.
        """
        wanted = parse_id(after)
        described = await self._topic(topic, fresh=True)
        async with self._reading(topic, described) as (_, log_now):
            first = log_now.end - count
            return identifier(first - 1, described.incarnation) if first > log_now.start(wanted) else None

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none."""
        described = await self._topic(topic, fresh=True)
        async with self._reading(topic, described) as (_, log_now):
            return identifier(log_now.first, described.incarnation) if log_now.first < log_now.end else None

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if all records after `after` are kept, else the id to resume after."""
        wanted = parse_id(after)
        described = await self._topic(topic, fresh=True)
        async with self._reading(topic, described) as (_, log_now):
            lost = None if after == BEGINNING else log_now.lost(wanted)
            return None if lost is None else lost.resume

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`. Ids of a deleted topic come first."""
        (at, log_of_one), (other_at, log_of_other) = parse_id(one), parse_id(other)
        if log_of_one == log_of_other or not log_of_one or not log_of_other:
            return at < other_at
        here = {described.incarnation for described in self._topics.values()}
        return at < other_at if (log_of_one in here) == (log_of_other in here) else log_of_other in here

    async def create_group(self, topic: str, group: str) -> None:
        """Commit the offset at which `group` starts, if it has none: what is published from now on."""
        await self._begin_group(topic, group, await self._topic(topic, fresh=True))

    async def join(self, topic: str, group: str, member: str) -> WorkerReader:
        """Join `group`. With one partition, one member works at a time; the others wait to take over.

        If records were deleted before the group processed them, the member ends at once with SubscriptionLost; the next
        one resumes with what is kept.
        """
        described = await self._topic(topic, fresh=True)
        lost = await self._begin_group(topic, group, described)
        session = int(self._takeover_after * 1000)
        settings = group_settings(described, group)
        settings |= {"client_id": member, "session_timeout_ms": session, "heartbeat_interval_ms": session // 4}
        consumer = self._consumer(**settings)
        worker = WorkerReader(topic, described, consumer, self._leave)
        await self._start(consumer, f"cannot join {group}")
        if lost is None:
            consumer.subscribe([described.name], listener=Rebalance(worker))
        else:
            worker.end(SubscriptionLost(f"{group}: {lost}"))
        self._begin(worker)
        return worker

    async def crash_risk(self) -> str:
        """Return which confirmed records a crash may lose: "" if they are on several nodes, or on disk."""
        self._require_open()
        try:
            settings = await self._broker_settings("min.insync.replicas", "log.flush.interval.messages")
        except LOST as error:
            raise self._unavailable("cannot read the broker's settings", error) from error
        if settings.get("log.flush.interval.messages") == "1":
            return ""
        if min(self._replication, int(settings.get("min.insync.replicas") or 1)) > 1:
            return ""
        return (
            "a crash of Kafka loses nothing, but a power cut may lose the last records: one node confirms them before"
            " they are on disk (see replication, min.insync.replicas and log.flush.interval.messages)"
        )

    async def why_refused(self) -> str:
        """Return "" if a new connection is accepted and the topics in use have a leader, else why not."""
        return await self._probe.why_refused()

    async def _try_to_read(self) -> str:
        """Connect as a new reader does, and ask the leader of each topic in use where its log ends."""
        partitions = [TopicPartition(name, 0) for name in self._topics]
        consumer = self._consumer()
        try:
            async with asyncio.timeout(PATIENCE):
                await consumer.start()
                await consumer.end_offsets(partitions)
        except LOST as error:
            return f"the broker at kafka://{self._servers} refuses a new reader: {error!r}"
        finally:
            await self._stop(consumer)
        return ""

    async def aclose(self) -> None:
        """Close every reader and connection."""
        self._closed, self._answers = True, False
        await asyncio.gather(*(reader.aclose() for reader in list(self._readers)))
        await self._tasks.aclose()
        await self._stopping.join(self._patience)
        await self._stopping.aclose()
        producer, admin, self._producer, self._admin = self._producer, self._admin, None, None
        if producer is not None:
            await producer.stop()
        if admin is not None:
            await admin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- Consumers ---

    def _consumer(self, **settings: Unpack[ConsumerSettings]) -> AIOKafkaConsumer:
        """Return a consumer that raises an error where aiokafka would reset its offset."""
        return AIOKafkaConsumer(
            **self._client, **settings, auto_offset_reset="none", max_partition_fetch_bytes=MAX_REQUEST
        )

    async def _start(self, consumer: AIOKafkaConsumer, what: str, described: Described | None = None) -> PartitionLog:
        """Start a consumer, assigned to a topic; return the extent of its log. On failure, nothing stays open."""
        log_now = PartitionLog("", 0, 0, 0)
        try:
            await consumer.start()
            if described is not None:
                consumer.assign([TopicPartition(described.name, 0)])
                log_now = await PartitionLog.of(consumer, described)
            self._require_open()
        except BaseException as error:
            await self._stop(consumer)
            if isinstance(error, LOST):
                raise self._unavailable(what, error) from error
            raise
        return log_now

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        """Stop a consumer, completely even if we are cancelled: else its connections would stay open."""
        await asyncio.shield(self._stopping.start(stop(consumer), name="kafka consumer's end"))

    async def _leave(self, reader: LogReader) -> None:
        self._readers.discard(reader)
        await self._stop(reader.consumer)

    def _begin(self, reader: LogReader) -> None:
        self._readers.add(reader)
        if not reader.closed:
            reader.start(self._tasks)

    @contextlib.asynccontextmanager
    async def _reading(self, topic: str, described: Described) -> AsyncIterator[tuple[AIOKafkaConsumer, PartitionLog]]:
        """Provide a short-lived consumer of a topic, and the extent of its log."""
        consumer, what = self._consumer(), f"cannot read {topic}"
        log_now = await self._start(consumer, what, described)
        try:
            yield consumer, log_now
        except LOST as error:
            raise self._unavailable(what, error) from error
        finally:
            await self._stop(consumer)

    async def _range(
        self, consumer: AIOKafkaConsumer, topic: str, described: Described, start: int, end: int
    ) -> list[Record]:
        """Return the records from the offset `start` up to `end`, which is excluded."""
        partition, records, clock = TopicPartition(described.name, 0), [], asyncio.get_running_loop().time
        consumer.seek(partition, start)
        async with asyncio.timeout(self._patience) as limit:
            while await consumer.position(partition) < end:  # not every offset has a record
                for fetched in (await consumer.getmany(timeout_ms=200, max_records=BATCH)).values():
                    records += records_of(topic, described, fetched)
                    limit.reschedule(clock() + self._patience)
                self._require_open()
        return [record for record in records if offset(record.id) < end]

    async def _first_page(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        described: Described,
        between: tuple[int, int],
        limit: int,
        octets: int,
    ) -> Page:
        """Return the records between two offsets, at most `limit`, stopping once their bodies reach `octets`."""
        (start, end), partition = between, TopicPartition(described.name, 0)
        page: list[Record] = []
        size = 0
        consumer.seek(partition, start)
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(self._patience) as deadline:
            while await consumer.position(partition) < end:
                for fetched in (await consumer.getmany(timeout_ms=200, max_records=limit)).values():
                    for record in records_of(topic, described, fetched):
                        if offset(record.id) >= end:
                            return Page(page, False)
                        if len(page) == limit or (page and size >= octets):
                            return Page(page, True)
                        page.append(record)
                        size += len(record.body)
                    deadline.reschedule(clock() + self._patience)
                self._require_open()
        return Page(page, False)

    async def _begin_group(self, topic: str, group: str, described: Described) -> SubscriptionLost | None:
        """Commit a group's start if it has none, or lost records; return the error for what it lost."""
        partition, founder = TopicPartition(described.name, 0), self._consumer(**group_settings(described, group))
        # The end is read before the group's offset: a group created in between has missed nothing.
        log_now = await self._start(founder, f"cannot join {group}", described)
        try:
            committed = await founder.committed(partition)
            lost = None if committed is None else log_now.lost((committed, 0))
            if committed is None or lost is not None:
                # A group that was joined here and that Kafka does not know has lost its offset with its topic.
                new = committed is None and (topic, group) not in self._joined_groups
                with contextlib.suppress(KafkaError):  # another member was faster
                    await founder.commit({partition: log_now.end if new else log_now.first})
        except LOST as error:
            raise self._unavailable(f"cannot join {group}", error) from error
        finally:
            await self._stop(founder)
        self._joined_groups.add((topic, group))
        return lost

    # --- Topics ---

    async def _topic(self, topic: str, *, fresh: bool = False) -> Described:
        """Return a topic, creating it if it is missing; `fresh`: look it up again."""
        self._require_open()
        name = escaped(topic, MAX_NAME)
        if not fresh and name in self._topics:
            return self._topics[name]
        try:
            described = await self._look_up(name) or await self._create(topic, name)
        except LOST as error:
            raise self._unavailable(f"cannot find or create the topic {topic}", error) from error
        if self._topics.get(name, described) != described:
            self._end_readers(name, "its topic was deleted and created again")
        self._topics[name] = described
        return described

    async def _look_up(self, name: str) -> Described | None:
        return (await describe(self._open_producer().client, [name])).get(name)

    async def _create(self, topic: str, name: str) -> Described:
        made = await self._open_admin().create_topics(
            [NewTopic(name, num_partitions=1, replication_factor=self._replication)]
        )
        for _, code, *why in made.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise BrokerError(f"cannot create the topic {topic}: {for_code(code).__name__} {why}")
        retry = Retry(on=UnknownTopicOrPartitionError, backoff=Backoff(0.02, 0.5), within=self._patience)
        async for attempt in retry:
            with attempt:
                if (described := await self._look_up(name)) is not None:
                    return described
                raise UnknownTopicOrPartitionError(name)  # this node does not know of it yet
        raise AssertionError("the last attempt returns or raises")

    async def _check(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PROBE_PATIENCE):
                    await self._check_once()
                self._answers = not self._closed
            except LOST:
                self._answers = False
            await asyncio.sleep(PROBE)

    async def _check_once(self) -> None:
        """Look up the topics in use. A change counts at the second check: metadata spreads slowly."""
        assert self._producer is not None  # this task ends before the producer does
        before = dict(self._topics)
        found = await describe(self._producer.client, list(before))
        changed = {name for name, known in before.items() if found.get(name) != known == self._topics.get(name)}
        for name in changed & self._doubtful:
            self._topics.pop(name)
            self._end_readers(name, f"its topic was deleted{' and created again' if name in found else ''}")
        self._doubtful = changed

    def _end_readers(self, name: str, reason: str) -> None:
        for reader in list(self._readers):
            if reader.partition.topic == name:
                reader.lose(f"records of {reader.topic} may have been missed: {reason}")

    def _fail(self, error: Exception) -> None:
        for reader in list(self._readers):
            reader.lose(f"records of {reader.topic} may have been missed: a background task failed: {error!r}")

    async def _broker_settings(self, *names: str) -> dict[str, str]:
        node = str(self._open_producer().client.get_random_node())
        resource = ConfigResource(ConfigResourceType.BROKER, node, configs=dict.fromkeys(names))
        (answer,) = await self._open_admin().describe_configs([resource])
        return {entry[0]: str(entry[1]) for described in answer.resources for entry in described[4]}

    def _open_producer(self) -> AIOKafkaProducer:
        """Return the producer. Raises BrokerClosed if the broker was closed, as it may be during any await."""
        self._require_open()
        assert self._producer is not None
        return self._producer

    def _open_admin(self) -> AIOKafkaAdminClient:
        self._require_open()
        assert self._admin is not None
        return self._admin

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerClosed(f"the broker at kafka://{self._servers} is closed")

    def _unavailable(self, what: str, error: BaseException) -> BrokerError:
        if self._closed:
            return BrokerClosed(f"{what}: the broker at kafka://{self._servers} was closed")
        return BrokerUnavailable(f"{what}: {error!r}")


class LogReader(Inbox):
    """An offset in the log. A task fetches more when all it fetched has been handed out."""

    def __init__(
        self, topic: str, described: Described, consumer: AIOKafkaConsumer, leave: Callable[[Any], Awaitable[None]]
    ) -> None:
        super().__init__(topic)
        self.partition = TopicPartition(described.name, 0)
        self.consumer = consumer
        self._described = described
        self._leave = leave
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: Tasks) -> None:
        """Start the task that fetches when records are asked for."""
        failed = "the task that reads them failed: {!r}"
        self._task = tasks.start(
            self._fetch_on_demand(),
            name=f"kafka reader of {self.topic}",
            on_failure=lambda error: self.lose(failed.format(error)),
        )

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost after what has been fetched, unless already closed."""
        if not self.closed:
            self.end(SubscriptionLost(reason))

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            self._emptied.set()
            await self.changed()
        return here

    async def aclose(self) -> None:
        """Stop reading."""
        self.discard()
        try:
            await cancel(self._task)
        finally:
            await self._leave(self)

    async def _fetch_on_demand(self) -> None:
        try:
            while not self.closed:
                await self._emptied.wait()
                self._emptied.clear()
                while not len(self) and not self.closed:
                    await self._fetch()
        except OffsetOutOfRangeError as error:
            self.lose(f"the log of {self.topic} was trimmed past its reader, or has lost its newest records: {error}")
        except LOST as error:
            self.lose(f"cannot read {self.topic} any more: {error!r}")

    async def _fetch(self) -> None:
        fetched = await self.consumer.getmany(timeout_ms=1000, max_records=BATCH)
        for records in fetched.values():
            self.put(records_of(self.topic, self._described, records))
        if not fetched and (error := fetching_failed(self.consumer)) is not None:
            raise KafkaError(f"the consumer has stopped fetching: {error!r}")


class WorkerReader(LogReader):
    """A member of a group. Kafka keeps one offset: records acknowledged out of order wait for earlier ones."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: deque[int] = deque()  # offsets handed to this member, oldest first
        self._done: set[int] = set()  # those among them that are acknowledged

    def put(self, records: Sequence[Record]) -> None:
        """Add records that Kafka assigned to this member."""
        self._open.extend(offset(record.id) for record in records)
        super().put(records)

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost at once: unacknowledged records are redelivered."""
        self.lose_work()
        super().lose(reason)

    async def ack(self, record: Record) -> None:
        """Acknowledge a record. Raises BrokerUnavailable if another member has it, or the commit fails."""
        if self.closed:
            raise BrokerUnavailable(f"this member has left; unless {record.id} was acknowledged, it is redelivered")
        self._done.add(offset(record.id))
        reached = None
        while self._open and self._open[0] in self._done:
            reached = self._open.popleft() + 1
            self._done.remove(reached - 1)
        if reached is not None:
            try:
                await self.consumer.commit({self.partition: reached})
            except LOST as error:
                raise BrokerUnavailable(f"the record may be redelivered to another member: {error!r}") from error

    def lose_work(self) -> None:
        """Drop all records: the group has changed, and unacknowledged ones are redelivered to some member."""
        self._waiting.clear()
        self._open.clear()
        self._done.clear()


class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells a worker when its group changes."""

    def __init__(self, worker: WorkerReader) -> None:
        self._worker = worker

    def on_partitions_revoked(self, revoked: object) -> None:
        """Drop the worker's records before the change."""
        self._worker.lose_work()

    def on_partitions_assigned(self, assigned: object) -> None:
        """Do nothing: this member resumes after the last acknowledged record."""


class PartitionLog(NamedTuple):
    """The extent of a topic's log: the offset of the first record kept, and that of the next record."""

    topic: str  # Kafka's name for it
    incarnation: int
    first: int
    end: int

    @classmethod
    async def of(cls, consumer: AIOKafkaConsumer, described: Described) -> Self:
        """Query Kafka."""
        partition = TopicPartition(described.name, 0)
        first = await consumer.beginning_offsets([partition])
        end = await consumer.end_offsets([partition])
        return cls(described.name, described.incarnation, first[partition], end[partition])

    def start(self, wanted: tuple[int, int]) -> int:
        """Return the offset of the first record kept after the id `wanted`."""
        at, incarnation = wanted
        return max(
            at if incarnation in (0, self.incarnation) else 0, self.first
        )  # all records are newer than a deleted log

    def lost(self, wanted: tuple[int, int]) -> SubscriptionLost | None:
        """Return the error for records lost after the id `wanted`, with where to resume; None if none are lost."""
        at, incarnation = wanted
        if incarnation not in (0, self.incarnation):
            return SubscriptionLost(f"{self.topic} was deleted and created again", resume=BEGINNING, restarted=True)
        if at > self.end:
            why = f"the log of {self.topic} ends at {self.end}, and the next record would be {at}"
            return SubscriptionLost(why, resume=identifier(self.end - 1, self.incarnation), restarted=True)
        if at < self.first:
            why = f"the log of {self.topic} was trimmed past its reader, by {self.first - at} records"
            return SubscriptionLost(why, resume=identifier(self.first - 1, self.incarnation))
        return None


def group_settings(described: Described, group: str) -> ConsumerSettings:
    """Return the settings of a consumer in a group."""
    return {"group_id": f"{described.name}-{escaped(group, MAX_NAME)}", "enable_auto_commit": False}


def records_of(topic: str, described: Described, records: Sequence[Any]) -> list[Record]:
    """Convert aiokafka's records to the port's."""
    return [Record(topic, identifier(each.offset, described.incarnation), each.value or b"") for each in records]


def identifier(at: int, incarnation: int = 0) -> str:
    """Return the id of the record at an offset."""
    return f"{at + 1}-{incarnation}"


def offset(of: str) -> int:
    """Return the offset of the record with an id."""
    return parse_id(of)[0] - 1
