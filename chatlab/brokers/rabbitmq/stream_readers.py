"""Readers of a stream queue: a position in it, and whether the stream still has what comes after that.

    first                        end
      │                            │        a record's id: its offset in the stream, and a number for the stream,
      5    6    7    9   10   11   12       "7-1795817912345", so that an id of a deleted stream is recognized

RabbitMQ gives each message of a stream an offset, in the header `x-stream-offset` of its delivery. Some offsets belong
to RabbitMQ itself (8 above: one for each new segment file), so a jump may be harmless, or the records in between may be
gone. A reader that sees a jump holds back what follows until it knows where the stream begins: nothing from there on is
gone.

AMQP has no question "where does the stream begin and end?", so `extent` finds out by reading: the first record kept,
and the last chunk (what RabbitMQ wrote to disk at once). RabbitMQ sends a chunk whole before it answers the next
request. So once one message of it is here, a request and its answer prove that all are. A stream without a record
would not answer at all; therefore each begins with one that no reader sees.

Left out: opening channels, and coming back after a loss (streams.py).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import aiormq
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

from chatlab.brokers.inbox import Inbox
from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Record
from chatlab.brokers.rabbitmq.broker import PREFETCH, QueueReader, RabbitMQBroker
from chatlab.errors import BrokerError, LinkLost, SubscriptionLost

OFFSET = "x-stream-offset"
FIRST_RECORD = "chatlab.first"  # the AMQP property `type` of a stream's first record
NO_FIRST_RECORD = 1.0  # seconds without a record after which a stream is given one: its founder may have died before
WHOLE_CHUNK = 10_000  # records: more than RabbitMQ writes at once
ON_DEMAND = 64  # records on their way to a query
EVERYTHING = (0, 0)  # the position before all records

MESSAGE_ID = re.compile(r"([0-9]{1,20})-[0-9A-Za-z-]+")


class Extent(NamedTuple):
    """The offset of the first record kept, and of the next record; and the stream's number, 0 if that is unknown."""

    incarnation: int
    first: int
    end: int

    def start(self, wanted: tuple[int, int]) -> int:
        """Return the offset of the first record kept after the position `wanted`."""
        at, incarnation = wanted
        same = incarnation in (0, self.incarnation)  # all records are newer than those of a deleted stream
        return max(at + 1 if same else 0, self.first)

    def lost(self, topic: str, wanted: tuple[int, int]) -> SubscriptionLost | None:
        """Return the error for records lost after the position `wanted`, with where to resume; None if none are."""
        at, incarnation = wanted
        if wanted == EVERYTHING:
            return None
        if incarnation not in (0, self.incarnation):
            why = f"the stream of {topic} was deleted and created again"
            return SubscriptionLost(why, resume=BEGINNING, restarted=True)
        if at >= self.end:
            why = f"the stream of {topic} ends at {self.end - 1}, and its reader was at {at}"
            return SubscriptionLost(why, resume=identifier(self.end - 1, self.incarnation), restarted=True)
        if at + 1 < self.first:
            why = f"the stream of {topic} was trimmed past its reader at {at}: it begins at {self.first}"
            return SubscriptionLost(why, resume=identifier(self.first - 1, self.incarnation))
        return None


class StreamOwner(Protocol):
    """What readers need from their broker."""

    def resume(self, reader: StreamReader) -> None:
        """Open the reader's channel again, and read on from its position."""

    def settle_doubt(self, reader: StreamReader) -> None:
        """Find out where the stream begins, and call `settle`."""


class StreamReader(QueueReader):
    """A position in a stream. It outlives restarts of RabbitMQ, and ends if unread records are gone."""

    prefetch = PREFETCH

    def __init__(self, topic: str, broker: RabbitMQBroker, owner: StreamOwner, after: tuple[int, int] | None) -> None:
        super().__init__(topic, broker)
        self.position = after  # of the last record handed out; None until the stream's end is known
        self.incarnation = 0
        self.lost = True  # there is no consumer
        self.attaching = True  # a task is about to change that,
        self.resuming: asyncio.Task[None] | None = None  # this one, after a loss
        self.arrival: asyncio.Future[None] | None = None  # of the first record while `extent` waits for it
        self._owner = owner
        self._next = 0  # the offset expected next
        self._held: list[DeliveredMessage] | None = None  # what came after a jump, until the doubt is settled
        self._places: deque[tuple[int, int]] = deque()  # offset and delivery tag of each record in the inbox

    def begin(self, extent: Extent) -> int | None:
        """Return the offset to consume from; None if records are lost, so that the reader has ended."""
        if self.position is None:
            self.position = (extent.end - 1, extent.incarnation)
        if (lost := extent.lost(self.topic, self.position)) is not None:
            self.end(lost)
            return None
        self.incarnation = extent.incarnation
        self._next = extent.start(self.position)
        self._handed_out = self._acknowledged = 0  # delivery tags start over with each channel
        return self._next

    async def arrive_on(self, channel: AbstractChannel, message: DeliveredMessage) -> None:
        """Add a message that RabbitMQ pushed on a channel, unless the reader has left that channel."""
        if channel is not self.channel or self.closed:
            return
        if self._held is not None:
            self._held.append(message)
        elif offset_of(message) > self._next:
            self._held = [message]
            self._owner.settle_doubt(self)
        else:
            self._take_in(message)

    @property
    def doubt(self) -> int | None:
        """Return the offset that was skipped; None if there is no doubt."""
        return self._next if self._held is not None else None

    def settle(self, extent: Extent) -> None:
        """Go on after a jump, or end if the stream begins after the offset that was expected."""
        held, self._held = self._held or [], None
        if (lost := extent.lost(self.topic, (self._next - 1, self.incarnation))) is not None:
            self.end(lost)
            return
        for message in held:
            self._take_in(message)

    def _take_in(self, message: DeliveredMessage) -> None:
        offset, tag = offset_of(message), tag_of(message)
        if offset < self._next:
            return
        self._next = offset + 1
        if message.header.properties.message_type != FIRST_RECORD:
            self.accept(message, offset, tag)

    def accept(self, message: DeliveredMessage, offset: int, tag: int) -> None:
        """Add the next record."""
        self._places.append((offset, tag))
        self.put([Record(self.topic, identifier(offset, self.incarnation), message.body)])

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        if self._handed_out - self._acknowledged >= self.prefetch // 2:
            await self.acknowledge()
        here = await Inbox.batch(self, limit)
        for _ in here:
            offset, self._handed_out = self._places.popleft()
            self.position = (offset, self.incarnation)
        return here

    def lose(self, reason: str) -> None:
        """Read on from the last record handed out, on a new channel: what was not handed out comes again."""
        self._held = None
        self._waiting.clear()
        self._places.clear()
        self.lost = True
        if self.arrival is not None and not self.arrival.done():
            self.arrival.set_exception(LinkLost(reason))
            self.arrival.exception()  # retrieved: `extent` may wait for something else
        if not self.attaching:
            self._owner.resume(self)


class Query(StreamReader):
    """A reader for one look at a stream: what is kept from a position on, up to the end when it was opened."""

    prefetch = ON_DEMAND

    def __init__(
        self, topic: str, broker: RabbitMQBroker, owner: StreamOwner, start: Callable[[Extent], int | None]
    ) -> None:
        super().__init__(topic, broker, owner, EVERYTHING)
        self.extent = Extent(0, 0, 0)
        self._start = start
        self._reached = -1  # the offset of the last record returned

    def begin(self, extent: Extent) -> int | None:
        """Return the offset to read from; None if there is nothing to read."""
        self.extent = extent
        self.incarnation = extent.incarnation
        start = self._start(extent)
        if start is None or start >= extent.end:
            self._reached = extent.end
            return None
        return start

    async def arrive_on(self, channel: AbstractChannel, message: DeliveredMessage) -> None:
        """Add a message. The stream's first record is added too, without a topic: the end may be there."""
        if channel is self.channel and not self.closed:
            offset, properties = offset_of(message), message.header.properties
            self._places.append((offset, tag_of(message)))
            topic = self.topic if properties.message_type != FIRST_RECORD else ""
            self.put([Record(topic, identifier(offset, self.incarnation), message.body)])

    async def portion(self) -> list[Record] | None:
        """Wait for the next records up to the end; None if all have been returned. Raises SubscriptionLost."""
        if self._reached >= self.extent.end - 1:
            return None
        batch = await self.batch()
        if not batch:
            raise SubscriptionLost("closed")
        self._reached = self.position[0] if self.position is not None else 0
        return [record for record in batch if record.topic and parse_id(record.id)[0] < self.extent.end]

    def lose(self, reason: str) -> None:
        """End, unless it is still being opened: then that is tried again."""
        if self.attaching:
            super().lose(reason)
        else:
            QueueReader.lose(self, reason)


class Tail(StreamReader):
    """The end of a stream that is published to: the offsets of our own records are seen there."""

    def __init__(self, topic: str, broker: RabbitMQBroker, owner: StreamOwner) -> None:
        super().__init__(topic, broker, owner, None)
        self.last_used = 0.0  # on the loop's clock
        self._expected: dict[str, asyncio.Future[str]] = {}  # by message id

    @property
    def idle(self) -> bool:
        """Return whether no publish waits for its id."""
        return not self._expected

    def expect(self, message_id: str) -> asyncio.Future[str]:
        """Return a future for the id of the record that has this message id."""
        loop = asyncio.get_running_loop()
        self.last_used = loop.time()
        self._expected[message_id] = expected = loop.create_future()
        return expected

    def forget(self, message_id: str) -> None:
        """Stop waiting for a record."""
        self._expected.pop(message_id, None)

    def accept(self, message: DeliveredMessage, offset: int, tag: int) -> None:
        """Hand the record's id to its publisher, if that is us."""
        self.position = (offset, self.incarnation)
        self._handed_out = tag
        expected = self._expected.get(message.header.properties.message_id or "")
        if expected is not None and not expected.done():
            expected.set_result(identifier(offset, self.incarnation))

    async def arrive_on(self, channel: AbstractChannel, message: DeliveredMessage) -> None:
        """Look at a message, and acknowledge many at once."""
        await super().arrive_on(channel, message)
        if self._handed_out - self._acknowledged >= self.prefetch // 2:
            await self.acknowledge()

    def end(self, error: Exception | None = None) -> None:
        """Close; publishes that wait for their id fail."""
        super().end(error)
        for expected in self._expected.values():
            if not expected.done():
                expected.set_exception(LinkLost(f"the end of the stream cannot be read: {error}"))
                expected.exception()  # retrieved: its publisher may have given up


async def extent(
    reader: StreamReader, channel: aiormq.abc.AbstractChannel, name: str, found: Callable[[], object]
) -> Extent:
    """Return the extent of the stream `name`. `found` is called if it has no record at all.

    The channel must have no other consumer. Records added later are not counted.
    """

    async def read(where: str, prefetch: int) -> list[DeliveredMessage]:
        arrived: list[DeliveredMessage] = []
        first = reader.arrival = asyncio.get_running_loop().create_future()

        async def on_message(message: DeliveredMessage) -> None:
            arrived.append(message)
            if not first.done():
                first.set_result(None)

        await channel.basic_qos(prefetch_count=prefetch)
        consuming = await channel.basic_consume(name, on_message, arguments={OFFSET: where})
        await asyncio.wait([first], timeout=NO_FIRST_RECORD)
        if not first.done():
            found()
        await first
        await channel.basic_cancel(str(consuming.consumer_tag))
        return arrived

    oldest = (await read("first", 1))[0]
    newest = max(await read("last", WHOLE_CHUNK), key=offset_of)
    first = offset_of(oldest) + (oldest.header.properties.message_type == FIRST_RECORD)
    return Extent(incarnation_of(oldest) or incarnation_of(newest), first, offset_of(newest) + 1)


def offset_of(message: DeliveredMessage) -> int:
    """Return a message's offset. Raises BrokerError if it does not come from a stream."""
    offset = (message.header.properties.headers or {}).get(OFFSET)
    if not isinstance(offset, int):
        raise BrokerError(f"the queue of {message.routing_key} is not a stream: delete it")
    return offset


def tag_of(message: DeliveredMessage) -> int:
    """Return the number by which a message is acknowledged."""
    delivery = message.delivery
    return (delivery.delivery_tag or 0) if isinstance(delivery, aiormq.spec.Basic.Deliver) else 0


def incarnation_of(message: DeliveredMessage) -> int:
    """Return the number of the stream for which a message was published; 0 for one of another publisher.

    Two instances may create a stream at the same time: then its second record says nothing.
    """
    found = MESSAGE_ID.fullmatch(message.header.properties.message_id or "")
    late = message.header.properties.message_type == FIRST_RECORD and offset_of(message) > 0
    return int(found[1]) if found and not late else 0


def identifier(offset: int, incarnation: int) -> str:
    """Return the id of the record at an offset."""
    return f"{offset}-{incarnation}"
