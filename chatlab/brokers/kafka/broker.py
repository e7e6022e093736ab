"""Kafka: an append-only log that each consumer reads at its own pace.

All topics share one log: a Kafka topic with several partitions, in which the key of a record is its topic. So a topic's
records are in one partition and in order, topics spread over the partitions and so over Kafka's nodes, and the number
of Kafka's topics does not grow with the number of rooms. kafka/partitions.py says where a topic is and what its ids
mean, kafka/follower.py how readers get what arrives, kafka/queries.py how what is kept is read, kafka/groups.py how
work is shared.

What this costs: the first time that a topic's newest records are asked for, its partition is read, with the other
topics in it. All topics are kept equally long, as the Kafka topic's settings say (a week, unless they are changed). A
reader that resumes from a position before the first record kept gets `SubscriptionLost`, even if only another topic's
records were removed.

The producer is idempotent, so what it resends after a broken connection is stored once. That covers one producer's own
retries: a publish repeated by another process is a second record, so this broker is not `Deduplicates`.

A reader ends with `SubscriptionLost` if the next record was deleted, if its offset is beyond the end of the log, if the
log was deleted (recreated or not) or has got more partitions, or if it may no longer read it. The log is looked up once
a second: Kafka does not announce that a topic was deleted.

The number of connections does not depend on how many topics are read; each member of a group has its own. Left out:
transactions, compaction; a log that lost its end in a power cut and grew past a reader's offset again before that
reader asks for more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from chatlab.brokers.inbox import MAX_WAITING
from chatlab.brokers.kafka.follower import Follower, LogReader
from chatlab.brokers.kafka.groups import GroupReader, OnePartition, assignor, group_of
from chatlab.brokers.kafka.partitions import MOST, Extent, Place, identifier, place_of
from chatlab.brokers.kafka.queries import LOST, Queries
from chatlab.brokers.kafka.topics import Described, describe, stop
from chatlab.brokers.names import escaped, parse_id
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.brokers.probe import PATIENCE, Probe
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks

logger = logging.getLogger(__name__)

LOG = "chatlab"  # Kafka's name for the log, unless the URL has another
PARTITIONS = 16
MAX_REQUEST = 2 << 20  # octets: a body of 1 MiB and its headers
MAX_NAME = 249  # characters
MAX_PLACES = 10_000  # topics whose place is remembered, to save time
PROBE = 1.0  # seconds between two checks of the broker and the log
FETCH_WAIT = 100  # ms that Kafka holds a fetch while there are no records. Another on the same connection waits, so
QUERY_WAIT = 1
PROBE_PATIENCE = 3.0  # seconds without an answer after which the broker counts as not connected


class ConsumerSettings(TypedDict, total=False):
    """The arguments of aiokafka's consumer that differ between readers."""

    group_id: str
    enable_auto_commit: bool
    client_id: str
    session_timeout_ms: int
    heartbeat_interval_ms: int
    partition_assignment_strategy: tuple[type[OnePartition], ...]
    fetch_max_wait_ms: int


class KafkaBroker:
    """One producer, one consumer for what arrives and one for what is kept; one more for each member of a group.

    `url`: kafka://HOST:PORT/LOG. Chats that share a Kafka and nothing else need different logs; without a name it is
    "chatlab". `log`: the same, apart from the URL. `partitions`, `replication`: of a new log; an existing one keeps
    what it has. `patience`: seconds a publish or a query waits for a broker that is away. `takeover_after`: seconds of
    silence after which a group gives a member's work to another. `max_waiting`: records that wait in memory for a
    reader that does not read; more wait in Kafka.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 10,
        takeover_after: float = 10,
        replication: int = 1,
        partitions: int = PARTITIONS,
        log: str = "",
        max_waiting: int = MAX_WAITING,
    ) -> None:
        parts = urlsplit(url)
        self._servers = parts.netloc.rpartition("@")[2]
        self._patience = patience
        self._takeover_after = takeover_after
        self._replication = replication
        self._partitions = partitions
        self._log_name = escaped(log or parts.path.strip("/") or LOG, MAX_NAME)
        self._max_waiting = max_waiting
        self._client: dict[str, Any] = {"bootstrap_servers": self._servers, "request_timeout_ms": int(patience * 1000)}
        if parts.username:
            self._client |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
            self._client |= {"sasl_plain_username": parts.username, "sasl_plain_password": parts.password}
        self._order = asyncio.Lock()  # fair: records are appended in the order of the calls
        self._producer: AIOKafkaProducer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._closed = True
        self._log: Described | None = None  # None until it is first used, and while it does not exist
        self._places: dict[str, Place] = {}  # of topics used lately, in this log
        self._creating = asyncio.Lock()
        self._forgotten = False  # whether there was another log of this name
        self._doubtful = False  # whether the log had changed at the last check
        self._joined_groups: set[str] = set()  # the groups joined here
        self._members: set[GroupReader] = set()
        self._answers = False
        self._tasks = Tasks(logger)
        self._stopping = Tasks(logger)  # consumers
        self._probe = Probe(self._try_to_read)
        self._queries = Queries(self._start_for_queries, self._stop, self._require_open, patience)
        self._follower = Follower(self._start_for_readers, self._stop, self._queries, self._tasks)

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
                    place = await self._place(topic)
                    producer = self._open_producer()
                    sent = True
                    appending = await producer.send(place.partition.topic, body, place.key, place.partition.partition)
                appended = await appending
        except LOST as error:
            if self._closed and not sent:
                raise BrokerClosed from error
            reason = f"the broker did not confirm the message: {error!r}"
            raise BrokerUnavailable(reason, outcome_unknown=sent) from error
        return identifier(appended.offset, place.number)

    async def subscribe(self, topic: str, *, after: str | None = None) -> LogReader:
        """Read from now on, or after the id `after`. Raises ValueError if that is not an id.

        If records after `after` are no longer kept, or it is not an id of this log, the reader ends at once with
        SubscriptionLost, which says where to resume.
        """
        wanted = None if after is None else parse_id(after)
        extent = await self._extent(topic)
        start = extent.end if wanted is None else extent.start(wanted)
        reader = LogReader(extent.place, start, self._follower, self._queries, self._max_waiting)
        lost = None if wanted is None or after == BEGINNING else extent.lost(wanted)
        if lost is not None:
            reader.end(lost)
            return reader
        try:
            async with self._asking(f"cannot read {topic}"):
                await self._follower.add(reader, extent.end)
            self._require_open()
        except BaseException:
            await reader.aclose()
            raise
        reader.follow()
        return reader

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Record]:
        """Return the records kept after `after`, oldest first; with `limit`, only the newest `limit` of them."""
        wanted = parse_id(after)
        extent = await self._extent(topic)
        start = extent.start(wanted)
        async with self._asking(f"cannot read {topic}"):
            if limit is not None:
                newest = await self._queries.newest(extent, limit, start) if limit else extent.end
                start = start if newest is None else newest
            return (await self._queries.forward(extent.place, (start, extent.end), None, None)).records

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records kept after `after`, bounded in number and octets."""
        wanted = parse_id(after)
        extent = await self._extent(topic)
        async with self._asking(f"cannot read {topic}"):
            part = await self._queries.forward(extent.place, (extent.start(wanted), extent.end), limit, octets)
        return Page(part.records, part.more)

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more are kept after `after`.

        It may be the id of another topic's record. For a `count` of 0 it is where the log ends.
        """
        wanted = parse_id(after)
        extent = await self._extent(topic)
        start = extent.start(wanted)
        if count == 0:
            return extent.before(extent.end) if start < extent.end else None
        async with self._asking(f"cannot read {topic}"):
            newest = await self._queries.newest(extent, count + 1, start)
        return None if newest is None else extent.place.id_of(newest)

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none."""
        extent = await self._extent(topic)
        async with self._asking(f"cannot read {topic}"):
            part = await self._queries.forward(extent.place, (extent.first, extent.end), 1, None)
        return part.records[0].id if part.records else None

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if all records after `after` are kept, else the id to resume after."""
        wanted = parse_id(after)
        extent = await self._extent(topic)
        lost = None if after == BEGINNING else extent.lost(wanted)
        return None if lost is None else lost.resume

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`. Ids of a deleted log come first."""
        (at, log_of_one), (other_at, log_of_other) = parse_id(one), parse_id(other)
        if log_of_one == log_of_other or not log_of_one or not log_of_other or self._log is None:
            return at < other_at
        is_here, other_is_here = (number // MOST == self._log.incarnation for number in (log_of_one, log_of_other))
        return at < other_at if is_here == other_is_here else other_is_here

    async def create_group(self, topic: str, group: str) -> None:
        """Commit the offset at which `group` starts, if it has none: what is published from now on."""
        await self._begin_group(group, await self._place(topic, fresh=True))

    async def join(self, topic: str, group: str, member: str) -> GroupReader:
        """Join `group`. One member works at a time; the others wait to take over.

        If records were deleted before the group processed them, the member ends at once with SubscriptionLost; the next
        one resumes with what is kept.
        """
        place = await self._place(topic, fresh=True)
        lost = await self._begin_group(group, place)
        session = int(self._takeover_after * 1000)
        settings = group_settings(place, group)
        settings |= {"client_id": member, "session_timeout_ms": session, "heartbeat_interval_ms": session // 4}
        settings |= {"partition_assignment_strategy": (assignor(place),)}
        async with self._asking(f"cannot join {group}"):
            worker = GroupReader(place, await self._started(**settings), self._leave)
        self._members.add(worker)
        if lost is None:
            worker.start(self._tasks)
        else:
            worker.end(SubscriptionLost(f"{group}: {lost}"))
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
        """Connect as a new reader does, and ask the leader of each partition where it ends."""
        log = self._log
        partitions = [] if log is None else [TopicPartition(log.name, number) for number in range(log.partitions)]
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
        await asyncio.gather(self._follower.aclose(), *(member.aclose() for member in list(self._members)))
        await self._queries.aclose()
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

    async def _started(self, **settings: Unpack[ConsumerSettings]) -> AIOKafkaConsumer:
        """Start a consumer. On failure, nothing stays open."""
        consumer = self._consumer(**settings)
        try:
            await consumer.start()
            self._require_open()
        except BaseException:
            await self._stop(consumer)
            raise
        return consumer

    async def _start_for_readers(self) -> AIOKafkaConsumer:
        # A partition that has its first reader waits for the fetch in progress, which may wait this long.
        return await self._started(fetch_max_wait_ms=FETCH_WAIT)

    async def _start_for_queries(self) -> AIOKafkaConsumer:
        return await self._started(fetch_max_wait_ms=QUERY_WAIT)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        """Stop a consumer, completely even if we are cancelled: else its connections would stay open."""
        await asyncio.shield(self._stopping.start(stop(consumer), name="kafka consumer's end"))

    async def _leave(self, member: GroupReader) -> None:
        self._members.discard(member)
        await self._stop(member.consumer)

    async def _extent(self, topic: str) -> Extent:
        place = await self._place(topic, fresh=True)
        async with self._asking(f"cannot read {topic}"):
            return await self._queries.extent(place)

    @contextlib.asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        """Turn aiokafka's errors into ours."""
        try:
            yield
        except LOST as error:
            raise self._unavailable(what, error) from error

    async def _begin_group(self, group: str, place: Place) -> SubscriptionLost | None:
        """Commit a group's start if it has none, or lost records; return the error for what it lost."""
        name, lost = group_of(place, group), None
        async with self._asking(f"cannot join {group}"):
            # The end is read before the group's offset: a group created in between has missed nothing.
            extent = await self._queries.extent(place)
            founder = await self._started(**group_settings(place, group))
            try:
                founder.assign([place.partition])
                committed = await founder.committed(place.partition)
                lost = None if committed is None else extent.lost((committed, 0))
                if committed is None or lost is not None:
                    # A group that was joined here and that Kafka does not know has lost its offset with its log.
                    new = committed is None and name not in self._joined_groups
                    with contextlib.suppress(KafkaError):  # another member was faster
                        await founder.commit({place.partition: extent.end if new else extent.first})
            finally:
                await self._stop(founder)
        self._joined_groups.add(name)
        return lost

    # --- The log ---

    async def _place(self, topic: str, *, fresh: bool = False) -> Place:
        """Return where a topic is, creating the log if it is missing; `fresh`: look it up again."""
        self._require_open()
        if fresh or self._log is None:
            try:
                await self._look_up()
            except LOST as error:
                raise self._unavailable(f"cannot find or create the log {self._log_name}", error) from error
            self._require_open()
        if (place := self._places.get(topic)) is None:
            assert self._log is not None
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            place = self._places[topic] = place_of(topic, self._log)
        return place

    async def _look_up(self) -> None:
        found = await self._find()
        if found is None:
            async with self._creating:
                found = await self._find() or await self._create()
        if self._log not in (None, found):
            self._forget_log(f"its log {self._log_name} was deleted and created again, or has more partitions")
        if self._forgotten:  # the producer would refuse a partition that it does not know
            async with asyncio.timeout(PROBE_PATIENCE):
                await self._open_producer().client.force_metadata_update()
            self._forgotten = False
        self._log = found

    async def _find(self) -> Described | None:
        return (await describe(self._open_producer().client, [self._log_name])).get(self._log_name)

    async def _create(self) -> Described:
        new = NewTopic(self._log_name, num_partitions=self._partitions, replication_factor=self._replication)
        made = await self._open_admin().create_topics([new])
        for _, code, *why in made.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise BrokerError(f"cannot create the topic {self._log_name}: {for_code(code).__name__} {why}")
        retry = Retry(on=UnknownTopicOrPartitionError, backoff=Backoff(0.02, 0.5), within=self._patience)
        async for attempt in retry:
            with attempt:
                if (described := await self._find()) is not None:
                    return described
                raise UnknownTopicOrPartitionError(self._log_name)  # this node does not know of it yet
        raise AssertionError("the last attempt returns or raises")

    async def _check(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PROBE_PATIENCE):
                    await self._check_once()
                self._answers = not self._closed
            except (*LOST, BrokerClosed):
                self._answers = False
            await asyncio.sleep(PROBE)

    async def _check_once(self) -> None:
        """Look up the log. A change counts at the second check: metadata spreads slowly."""
        before = self._log
        found = await self._find()
        changed = before is not None and found != before == self._log
        if changed and self._doubtful:
            self._forget_log(f"its log {self._log_name} was deleted{' and created again' if found else ''}")
        self._doubtful = changed

    def _forget_log(self, reason: str) -> None:
        """End all readers and members: the log they read is not the one of this name any more."""
        self._log, self._forgotten = None, True
        self._places.clear()
        self._queries.indexes.clear()
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        self._follower.lose(reason)
        for member in list(self._members):
            member.lose(f"records of {member.topic} may have been missed: {reason}")

    def _fail(self, error: Exception) -> None:
        self._lose(f"a background task failed: {error!r}")

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


def group_settings(place: Place, group: str) -> ConsumerSettings:
    """Return the settings of a consumer in a group."""
    return {"group_id": group_of(place, group), "enable_auto_commit": False}
