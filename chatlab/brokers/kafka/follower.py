"""The live end of the log: one consumer for all readers of a broker, and the readers themselves.

A reader is an offset in its topic's partition. At first it reads what is kept (`Queries`); once it has reached the
offset where this consumer is, it takes what arrives, without a gap and without a repeat. A reader whose inbox is full
goes back to reading what is kept, so a slow one delays no other.

The consumer reads the partitions of the topics that have readers here, with all topics in them: a record of another
topic costs some microseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from chatlab.brokers.inbox import ForwardingInbox
from chatlab.brokers.kafka.partitions import Place, offset
from chatlab.brokers.kafka.queries import BATCH, LOST, Queries, record_of
from chatlab.brokers.kafka.topics import fetching_failed
from chatlab.brokers.port import Record
from chatlab.errors import BrokerClosed, BrokerUnavailable, SubscriptionLost
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks, cancel

log = logging.getLogger(__name__)

PAGE_OCTETS = 256 << 10  # of what is read at a time while a reader catches up
AGAIN = Backoff(0.1, 1.0)  # while Kafka is away


class Follower:
    """Where the consumer is in each partition, and the readers to which it hands what arrives."""

    def __init__(
        self,
        start: Callable[[], Awaitable[AIOKafkaConsumer]],
        stop: Callable[[AIOKafkaConsumer], Awaitable[None]],
        queries: Queries,
        tasks: Tasks,
    ) -> None:
        self.readers: set[LogReader] = set()  # all that are open
        self._start = start
        self._stop = stop
        self._queries = queries
        self._tasks = tasks
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._following: dict[TopicPartition, dict[bytes, set[LogReader]]] = {}
        self._starting = asyncio.Lock()

    async def add(self, reader: LogReader, end: int) -> None:
        """Add a reader; `end` is where its partition ended a moment ago."""
        self.readers.add(reader)
        async with self._starting:
            if self._consumer is None:
                self._consumer = await self._start()
                self._task = self._tasks.start(
                    self._follow(self._consumer), name="kafka follower", on_failure=self._fail
                )
            if reader.place.partition not in self._positions:
                self._read_also(self._consumer, reader.place.partition, end)

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the record that arrives next."""
        return self._positions.get(partition, 0)

    def follow(self, reader: LogReader) -> None:
        """Hand a reader what arrives from now on."""
        self._following.setdefault(reader.place.partition, {}).setdefault(reader.place.key, set()).add(reader)

    def leave(self, reader: LogReader) -> None:
        """Hand a reader nothing more."""
        readers = self._following.get(reader.place.partition, {})
        of_topic = readers.get(reader.place.key, set())
        of_topic.discard(reader)
        if not of_topic:
            readers.pop(reader.place.key, None)

    def lose(self, reason: str, partition: TopicPartition | None = None) -> None:
        """End all readers, or those of a partition, because records may be gone."""
        for reader in list(self.readers):
            if partition in (None, reader.place.partition):
                reader.lose(reason)
        for each in [partition] if partition is not None else list(self._positions):
            self._positions.pop(each, None)
            if self._consumer is not None and each in self._consumer.assignment():
                self._consumer.pause(each)  # until it is read again from elsewhere

    async def aclose(self) -> None:
        """Close all readers, and stop."""
        for reader in list(self.readers):
            await reader.aclose()
        await cancel(self._task)

    # --- Internal ---

    def _read_also(self, consumer: AIOKafkaConsumer, partition: TopicPartition, start: int) -> None:
        """Read one more partition from `start` on, and no longer those that have no readers."""
        read = {reader.place.partition for reader in self.readers}
        self._positions = {each: at for each, at in self._positions.items() if each in read} | {partition: start}
        consumer.assign(list(self._positions))
        for each, at in self._positions.items():
            consumer.seek(each, at)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                await self._fetch(consumer)
        except LOST as error:
            self.lose(f"cannot read any more: {error!r}")
        finally:
            self._consumer = None
            await self._stop(consumer)

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        try:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        except OffsetOutOfRangeError as error:
            for partition in error.args[0]:
                why = "the log was trimmed past its reader, or has lost its newest records"
                self.lose(f"{why}: {error}", partition)
            return
        for partition, records in fetched.items():
            self._hand_out(partition, records)
        if not fetched and (failure := fetching_failed(consumer)) is not None:
            raise KafkaError(f"the consumer has stopped fetching: {failure!r}")

    def _hand_out(self, partition: TopicPartition, raw: Sequence[Any]) -> None:
        start = self._positions.get(partition)
        if start is None:
            return
        end = self._positions[partition] = max(start, raw[-1].offset + 1)
        if (index := self._queries.indexes.get(partition)) is not None:
            index.append(start, end, ((each.offset, each.key or b"") for each in raw))
        readers = self._following.get(partition)
        if not readers:
            return
        found: dict[bytes, list[Any]] = {}
        for each in raw:
            if each.key in readers and each.offset >= start:
                found.setdefault(each.key, []).append(each)
        for key, records in found.items():
            self._deliver(list(readers[key]), records)

    def _deliver(self, readers: Sequence[LogReader], raw: Sequence[Any]) -> None:
        records = [record_of(readers[0].place, each) for each in raw]
        for reader in readers:
            reader.arrive(records, raw[0].offset, raw[-1].offset)

    def _fail(self, error: Exception) -> None:
        self.lose(f"the task that reads them failed: {error!r}")


class LogReader(ForwardingInbox):
    """An offset in the log."""

    def __init__(self, place: Place, at: int, follower: Follower, queries: Queries, max_waiting: int) -> None:
        super().__init__(place.topic)
        self.place = place
        self.position = at
        self._follower = follower
        self._queries = queries
        self._max_waiting = max_waiting
        self._following = False

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            if self.follow():
                await self.changed()
            else:
                await self._catch_up()
        return here

    def follow(self) -> bool:
        """Take what arrives from now on, if there is nothing kept to be read before; return whether that is so."""
        if not self._following and not self.closed:
            self._following = self._follower.position(self.place.partition) <= self.position
            if self._following:
                self._follower.follow(self)
        return self._following

    def arrive(self, records: Sequence[Record], first: int, last: int) -> None:
        """Take records that have arrived, in order; ignore those before this reader's position."""
        if first < self.position:
            records = [each for each in records if offset(each.id) >= self.position]
        if not records:
            return
        self.position = last + 1
        self.put(records)
        if len(self) > self._max_waiting:  # let records wait in Kafka instead
            self._leave()
            self._changed.set()

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost after what has been fetched, unless already closed."""
        if not self.closed:
            self.end(SubscriptionLost(f"records of {self.topic} may have been missed: {reason}"))

    def end(self, error: Exception | None = None) -> None:
        """Close the reader, with an error if there is one."""
        super().end(error)
        self._leave()
        self._follower.readers.discard(self)

    async def aclose(self) -> None:
        """Stop reading."""
        self.discard()

    def _leave(self) -> None:
        self._following = False
        self._follower.leave(self)

    async def _catch_up(self) -> None:
        """Read some of what is kept up to where the follower is."""
        try:
            async for attempt in Retry(on=BrokerUnavailable, backoff=AGAIN):
                with attempt:
                    await self._read_some()
        except BrokerClosed:
            self.end()
        except OffsetOutOfRangeError as error:
            self.lose(f"the log was trimmed past its reader, or has lost its newest records: {error}")

    async def _read_some(self) -> None:
        upto = self._follower.position(self.place.partition)
        try:
            part = await self._queries.forward(self.place, (self.position, upto), BATCH, PAGE_OCTETS)
        except OffsetOutOfRangeError:
            raise
        except LOST as error:
            raise BrokerUnavailable(f"cannot read {self.topic}: {error!r}") from error
        if not self.closed:
            self.position = part.next
            self.put(part.records)
