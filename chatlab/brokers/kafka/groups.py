"""Groups on Kafka: one offset for each, and one member that works at a time.

A group of a topic is a consumer group that reads one partition of the log. Kafka gives a partition to one member, so
the records of a topic are worked on in order, by one member; the others wait to take over. Groups of other topics work
in parallel.

Kafka keeps one number for a group: everything before it is done. So records acknowledged out of order wait for earlier
ones, and records of other topics that come first in the partition are passed over and counted as done.

Left out: a topic worked on by several members at once, for which its records would have to be in several partitions, in
no order; returning records without a new delivery (`Postpones`): Kafka does not count deliveries.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from chatlab.brokers.inbox import Inbox
from chatlab.brokers.kafka.partitions import Place, offset
from chatlab.brokers.kafka.queries import BATCH, LOST, record_of
from chatlab.brokers.kafka.topics import fetching_failed
from chatlab.brokers.names import shortened
from chatlab.brokers.port import Record
from chatlab.errors import BrokerUnavailable, SubscriptionLost
from chatlab.tasks import Tasks, cancel

MAX_NAME = 1000  # characters
PASSING = 5.0  # seconds after which it is written down that other topics' records were passed over


def group_of(place: Place, group: str) -> str:
    """Return Kafka's name for a topic's group. `escaped` never returns two underscores in a row."""
    return f"{place.partition.topic}__{shortened(place.topic, MAX_NAME)}__{shortened(group, MAX_NAME)}"


class GroupReader(Inbox):
    """A member of a group, with a consumer of its own. A task fetches more when all it fetched has been handed out."""

    def __init__(self, place: Place, consumer: AIOKafkaConsumer, leave: Callable[[Any], Awaitable[None]]) -> None:
        super().__init__(place.topic)
        self.place = place
        self.consumer = consumer
        self._leave = leave
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._open: deque[int] = deque()  # offsets handed to this member, oldest first
        self._done: set[int] = set()  # those among them that are acknowledged
        self._passed = 0  # the offset up to which the partition has been read
        self._reached = 0  # the offset committed last, and
        self._written = time.monotonic()  # when

    def start(self, tasks: Tasks) -> None:
        """Join, and start the task that fetches when records are asked for."""
        self.consumer.subscribe([self.place.partition.topic], listener=Rebalance(self))
        failed = "the task that reads them failed: {!r}"
        self._task = tasks.start(
            self._fetch_on_demand(),
            name=f"kafka member for {self.topic}",
            on_failure=lambda error: self.lose(failed.format(error)),
        )

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            self._emptied.set()
            await self.changed()
        return here

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
                await self._commit(reached if self._open else max(reached, self._passed))
            except LOST as error:
                raise BrokerUnavailable(f"the record may be redelivered to another member: {error!r}") from error

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost at once, unless already closed: unacknowledged records are redelivered."""
        self.lose_work()
        if not self.closed:
            self.end(SubscriptionLost(reason))

    def lose_work(self) -> None:
        """Drop all records: the group has changed, and unacknowledged ones are redelivered to some member."""
        self._waiting.clear()
        self._open.clear()
        self._done.clear()
        self._passed = 0

    async def aclose(self) -> None:
        """Leave the group."""
        self.discard()
        try:
            await cancel(self._task)
        finally:
            await self._leave(self)

    # --- Internal ---

    async def _fetch_on_demand(self) -> None:
        try:
            while not self.closed:
                await self._emptied.wait()
                self._emptied.clear()
                while not len(self) and not self.closed:
                    await self._fetch()
        except OffsetOutOfRangeError as error:
            self.lose(f"the log was trimmed past its reader, or has lost its newest records: {error}")
        except LOST as error:
            self.lose(f"cannot read {self.topic} any more: {error!r}")

    async def _fetch(self) -> None:
        fetched = await self.consumer.getmany(timeout_ms=1000, max_records=BATCH)
        for raw in fetched.values():
            own = [each for each in raw if each.key == self.place.key]
            self._open.extend(each.offset for each in own)
            self._passed = raw[-1].offset + 1
            self.put([record_of(self.place, each) for each in own])
        if not fetched and (error := fetching_failed(self.consumer)) is not None:
            raise KafkaError(f"the consumer has stopped fetching: {error!r}")
        await self._pass_over()

    async def _pass_over(self) -> None:
        """Write down now and then that other topics' records were passed over, so that nobody reads them again."""
        due = time.monotonic() - self._written > PASSING and self._passed > self._reached
        if due and not self._open:
            with contextlib.suppress(*LOST):  # the group has changed, or Kafka is away: it is done later
                await self._commit(self._passed)

    async def _commit(self, reached: int) -> None:
        self._written = time.monotonic()
        await self.consumer.commit({self.place.partition: reached})
        self._reached = reached


class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells a member when its group changes."""

    def __init__(self, member: GroupReader) -> None:
        self._member = member

    def on_partitions_revoked(self, revoked: object) -> None:
        """Drop the member's records before the change."""
        self._member.lose_work()

    def on_partitions_assigned(self, assigned: object) -> None:
        """Do nothing: this member resumes after the last acknowledged record."""


class OnePartition(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Gives the group's one partition to its first member; nobody reads the others. Made by `assignor`."""

    name = "chatlab-one-partition"
    version = 0
    partition = 0

    @classmethod
    def assign(
        cls, cluster: object, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return what each member reads."""
        first = min(members)
        (topic,) = members[first].subscription
        reads = {member: [(topic, [cls.partition])] if member == first else [] for member in members}
        return {member: ConsumerProtocolMemberAssignment(cls.version, read, b"") for member, read in reads.items()}

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what a member tells the others."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Do nothing."""


def assignor(place: Place) -> type[OnePartition]:
    """Return the assignor of a group: aiokafka takes a class."""
    return type("OnePartition", (OnePartition,), {"partition": place.partition.partition})
