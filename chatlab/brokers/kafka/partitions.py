"""Where a topic's records are: a partition of the log, chosen by the topic's name, and offsets in it. No I/O.

    place = place_of("chat:{cats}", described)        partition 11 of 16
    identifier(41, place.number)                      "42-98217441296395"

All topics share one log, a Kafka topic with several partitions. A record's key is its topic, and the key alone decides
the partition, so the records of one topic are in order. Java's producers choose the same partition for the same key.

An id is the offset counted from 1, so that "0-0" is before all, and a number for the partition of this log. If the log
is deleted and recreated (KIP-516), or gets more partitions, ids from before are recognized by that number.

The records of one topic lie among those of the others in its partition. An `Index` remembers where: it spares reading
what is in between.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import murmur2

from chatlab.brokers.kafka.topics import Described
from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING
from chatlab.errors import SubscriptionLost

MOST = 1 << 16  # partitions that a number can tell apart
SLACK = 10_000  # offsets that an index keeps although their records are gone, before it is cleaned up


class Place(NamedTuple):
    """Where the records of a topic are."""

    topic: str
    key: bytes
    partition: TopicPartition
    number: int  # the second half of its records' ids

    def id_of(self, at: int) -> str:
        """Return the id of the record at an offset."""
        return identifier(at, self.number)


def place_of(topic: str, described: Described) -> Place:
    """Return where a topic is in a log."""
    key = topic.encode()
    number = partition_of(key, described.partitions)
    return Place(topic, key, TopicPartition(described.name, number), described.incarnation * MOST + number)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key as Kafka's own partitioner does (murmur2, as in Java's `BuiltInPartitioner`)."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def identifier(at: int, number: int = 0) -> str:
    """Return the id of the record at an offset."""
    return f"{at + 1}-{number}"


def offset(of: str) -> int:
    """Return the offset of the record with an id."""
    return parse_id(of)[0] - 1


class Extent(NamedTuple):
    """How far a topic's partition reaches: the offset of the first record kept, and that of the next record."""

    place: Place
    first: int
    end: int

    @classmethod
    async def of(cls, consumer: AIOKafkaConsumer, place: Place) -> Self:
        """Query Kafka."""
        first = await consumer.beginning_offsets([place.partition])
        end = await consumer.end_offsets([place.partition])
        return cls(place, first[place.partition], end[place.partition])

    def start(self, wanted: tuple[int, int]) -> int:
        """Return the offset of the first record kept after the id `wanted`. All records are newer than another log."""
        at, number = wanted
        return max(at if self._is_ours(number) else 0, self.first)

    def lost(self, wanted: tuple[int, int]) -> SubscriptionLost | None:
        """Return the error for records lost after the id `wanted`, with where to resume; None if none are lost.

        What was trimmed may have been other topics' records. An `Index` that reaches back far enough tells.
        """
        (at, number), log = wanted, self.place.partition.topic
        if not self._is_ours(number):
            return SubscriptionLost(f"the log {log} was deleted and created again", resume=BEGINNING, restarted=True)
        if at > self.end:
            why = f"the log {log} ends at {self.end} for {self.place.topic}, and the next record would be {at}"
            return SubscriptionLost(why, resume=self.before(self.end), restarted=True)
        if at < self.first:
            why = f"the log {log} was trimmed past its reader, by {self.first - at} records"
            return SubscriptionLost(why, resume=self.before(self.first))
        return None

    def before(self, at: int) -> str:
        """Return the id of what is before an offset."""
        return identifier(at - 1, self.place.number)

    def _is_ours(self, number: int) -> bool:
        return number == self.place.number or not number or self.place.number < MOST  # the last: no topic ids


class Index:
    """The offsets of each key in one stretch of a partition, from `low` up to `high`, which is excluded."""

    def __init__(self, at: int) -> None:
        self.low = self.high = at
        self._offsets: dict[bytes, array[int]] = {}

    def append(self, start: int, end: int, found: Iterable[tuple[int, bytes]]) -> None:
        """Add the records read from `start` up to `end`; ignore those that are in already, or leave a hole."""
        if not start <= self.high < end:
            return
        for at, key in found:
            if at >= self.high:
                self._of(key).append(at)
        self.high = end

    def prepend(self, start: int, found: Iterable[tuple[int, bytes]]) -> None:
        """Add the records read from `start` up to `low`."""
        before: dict[bytes, array[int]] = {}
        for at, key in found:
            if at < self.low:
                before.setdefault(key, array("q")).append(at)
        for key, offsets in before.items():
            offsets.extend(self._of(key))
            self._offsets[key] = offsets
        self.low = start

    def forget(self, first: int) -> None:
        """Forget records that are no longer kept, once there are many."""
        if first < self.low + SLACK:
            return
        for key, offsets in list(self._offsets.items()):
            if left := offsets[bisect_left(offsets, first) :]:
                self._offsets[key] = left
            else:
                del self._offsets[key]
        self.low, self.high = first, max(self.high, first)

    def skip(self, key: bytes, start: int) -> int:
        """Return the first offset from `start` on that may hold a record of this key."""
        if not self.low <= start < self.high:
            return start
        offsets = self._offsets.get(key, ())
        place = bisect_left(offsets, start)
        return offsets[place] if place < len(offsets) else self.high

    def newest(self, key: bytes, count: int, start: int) -> int | None:
        """Return the offset of the `count`th newest record from `start` on; None if the index has fewer."""
        offsets = self._offsets.get(key, ())
        return offsets[-count] if 0 < count <= len(offsets) and offsets[-count] >= start else None

    def _of(self, key: bytes) -> array[int]:
        return self._offsets.setdefault(key, array("q"))
