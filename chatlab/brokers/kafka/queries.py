"""Reading what is kept: ranges of a partition, and one topic's records among those of the others.

All queries of a broker share one consumer, which reads one range at a time; a long query lets others in between. It
only ever has a bounded number of records in memory.

The first query for the newest records of a topic reads its partition backwards until it has found them, at worst to the
beginning of the log. What it has seen is remembered in an `Index` (8 octets for each record), to which the live reader
adds what arrives, so the next query goes straight to the offsets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from chatlab.brokers.kafka.partitions import Extent, Index, Place
from chatlab.brokers.kafka.topics import fetching_failed
from chatlab.brokers.port import Record

LOST = (KafkaError, OSError, ConsumerStoppedError)  # TimeoutError is an OSError

CHUNK = 4096  # offsets that are read at a time; backwards twice as many each time, up to
LARGEST_CHUNK = 65_536
SMALLEST_CHUNK = 256  # if few records are asked for
OCTETS = 4 << 20  # of bodies that are in memory at a time, about
BATCH = 512  # records that are decoded at a time
JUMP = 2000  # offsets; fewer are read rather than skipped, because a new request costs more


class Part(NamedTuple):
    """What was read of a topic: its records, whether the bounds left some out, and the offset to read on from."""

    records: list[Record]
    more: bool
    next: int


class Queries:
    """One consumer for all queries, started by the first. `start` and `stop` do that; `patience`: seconds."""

    def __init__(
        self,
        start: Callable[[], Awaitable[AIOKafkaConsumer]],
        stop: Callable[[AIOKafkaConsumer], Awaitable[None]],
        require_open: Callable[[], None],
        patience: float,
    ) -> None:
        self.indexes: dict[TopicPartition, Index] = {}
        self._start = start
        self._stop = stop
        self._require_open = require_open
        self._patience = patience
        self._consumer: AIOKafkaConsumer | None = None
        self._limits: set[asyncio.Timeout] = set()  # of what is in progress
        self._starting = asyncio.Lock()
        self._reading = asyncio.Lock()  # fair: queries take turns
        self._backwards: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def extent(self, place: Place) -> Extent:
        """Return how far a topic's partition reaches."""
        consumer = await self._started()
        async with self._limited():
            extent = await Extent.of(consumer, place)
        if (index := self.indexes.get(place.partition)) is not None:
            index.forget(extent.first)
            if index.high > extent.end:  # Kafka has lost its newest records
                del self.indexes[place.partition]
        return extent

    async def forward(self, place: Place, between: tuple[int, int], limit: int | None, octets: int | None) -> Part:
        """Return the topic's records between two offsets: at most `limit`, stopping once they reach `octets`.

        Raises OffsetOutOfRangeError if records in between are gone.
        """
        (at, end), size = between, 0
        records: list[Record] = []
        while (at := self._skip(place, at)) < end:
            ask = CHUNK if limit is None else max(SMALLEST_CHUNK, limit - len(records))
            raw, following = await self.read(place.partition, at, min(end, at + ask), octets)
            for each in raw:
                if each.key != place.key:
                    continue
                if (limit is not None and len(records) >= limit) or (records and octets is not None and size >= octets):
                    return Part(records, True, each.offset)
                records.append(record_of(place, each))
                size += len(records[-1].body)
            at = following
        return Part(records, False, max(at, end))

    async def newest(self, extent: Extent, count: int, start: int) -> int | None:
        """Return the offset of the `count`th newest record from `start` on; None if there are fewer."""
        place, chunk = extent.place, CHUNK
        index = self.indexes.setdefault(place.partition, Index(extent.end))
        async with self._backwards[place.partition]:
            while index.high < extent.end:
                low = index.high
                index.append(low, *await self._keys(place.partition, low, min(extent.end, low + LARGEST_CHUNK)))
            while (found := index.newest(place.key, count, start)) is None and index.low > start:
                low = max(start, index.low - chunk)
                _, keys = await self._keys(place.partition, low, index.low)
                index.prepend(low, keys)
                chunk = min(LARGEST_CHUNK, 2 * chunk)
        return found

    async def read(
        self, partition: TopicPartition, start: int, end: int, octets: int | None = None
    ) -> tuple[list[Any], int]:
        """Return the records between two offsets, whichever topics' they are, and the offset to read on from.

        Stops early, but not before the first record, once they reach `octets`, or OCTETS.
        """
        async with self._reading:
            consumer = await self._started()
            try:
                return await self._read(consumer, partition, start, end, min(octets or OCTETS, OCTETS))
            except LOST:
                await self.aclose()  # it may hold an error that the next query would get
                raise

    async def aclose(self) -> None:
        """Stop the consumer, and fail the queries in progress; the next one starts another."""
        consumer, self._consumer = self._consumer, None
        for limit in self._limits:
            limit.reschedule(0)  # aiokafka would try a request again and again
        if consumer is not None:
            await self._stop(consumer)

    # --- Internal ---

    async def _started(self) -> AIOKafkaConsumer:
        async with self._starting:
            self._require_open()
            if self._consumer is None:
                self._consumer = await self._start()
            return self._consumer

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[asyncio.Timeout]:
        """Raise TimeoutError after `patience` seconds, or when the consumer is stopped."""
        async with asyncio.timeout(self._patience) as limit:
            self._limits.add(limit)
            try:
                yield limit
            finally:
                self._limits.discard(limit)

    async def _read(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int, octets: int
    ) -> tuple[list[Any], int]:
        self._require_open()
        await self._seek(consumer, partition, start)
        records: list[Any] = []
        size = 0
        clock = asyncio.get_running_loop().time
        async with self._limited() as limit:
            while (at := await consumer.position(partition)) < end:  # not every offset has a record
                if records and size >= octets:
                    break
                found = await consumer.getmany(timeout_ms=200, max_records=min(BATCH, end - at))
                if not found and (failure := fetching_failed(consumer)) is not None:
                    raise KafkaError(f"the consumer has stopped fetching: {failure!r}")
                for fetched in found.values():
                    records += fetched
                    size += sum(len(each.value or b"") for each in fetched)
                    limit.reschedule(clock() + self._patience)
                self._require_open()
        if at >= (consumer.highwater(partition) or 0):
            consumer.pause(partition)  # else it would go on asking for more
        while records and records[-1].offset >= end:
            records.pop()
        return records, at

    async def _seek(self, consumer: AIOKafkaConsumer, partition: TopicPartition, start: int) -> None:
        """Go to an offset; stay there if the last read ended there, because what was fetched ahead is still here."""
        if consumer.assignment() != {partition}:
            consumer.assign([partition])
            consumer.seek(partition, start)
        elif await consumer.position(partition) != start:
            consumer.seek(partition, start)
        consumer.resume(partition)

    async def _keys(self, partition: TopicPartition, start: int, end: int) -> tuple[int, list[tuple[int, bytes]]]:
        """Return `end`, and the offset and key of each record between two offsets."""
        at, keys = start, list[tuple[int, bytes]]()
        while at < end:
            raw, at = await self.read(partition, at, end)
            keys += ((each.offset, each.key or b"") for each in raw)
        return end, keys

    def _skip(self, place: Place, at: int) -> int:
        """Return where to read on: further on, if an index knows that there is nothing of this topic in between."""
        index = self.indexes.get(place.partition)
        following = at if index is None else index.skip(place.key, at)
        return following if following - at > JUMP else at


def record_of(place: Place, raw: Any) -> Record:
    """Convert one of aiokafka's records to the port's."""
    return Record(place.topic, place.id_of(raw.offset), raw.value or b"")
