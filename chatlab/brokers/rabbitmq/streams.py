"""RabbitMQ with history: each topic is a stream queue, which keeps its records, and readers have positions in it.

    publish      the exchange copies the message to the topic's stream, and to the queues of its groups
    the id       its offset: a confirm does not say it, so the broker reads the end of each stream that it publishes
                 to, and finds its own message there
    subscribe    a consumer at an offset, which resumes from the next one when RabbitMQ comes back

That costs a delivery more for each publish than in `broker.py`, whose readers get copies that are deleted with them;
groups are the same. Stream queues need RabbitMQ 3.9.

RabbitMQ keeps a stream in segment files, and removes whole ones, when a new one is begun: when there are more than
`max_octets`, or the last record of a segment is older than `max_age`. So a stream holds up to a segment more than that,
and a quiet one keeps its records however old they are. There is no limit in records. A stream's limits are those of the
broker that created it; a policy (`max-length-bytes`, `max-age`) changes them. A stream has no expiry: it stays until
somebody deletes it (`rabbitmqctl delete_queue`), as a group's queue does.

Left out: clusters; a stream that lost its end in a power cut and grew past a reader's offset again before that reader
came back; deduplication (publisher ids are in RabbitMQ's stream protocol, not in AMQP). A reader that is exactly at the
end of a removed segment may be told that records are lost. If two instances create a stream in the same moment,
RabbitMQ 3.10 may close the connection of one; its readers of streams resume.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from aiormq.abc import FieldTable

from chatlab.brokers.names import parse_id, shortened
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.brokers.rabbitmq.broker import MAX_WAITING, RECONNECT, OnMessage, RabbitMQBroker, check
from chatlab.brokers.rabbitmq.link import EXCHANGE, LOST, MAX_TOPIC, Link, as_lost, beneath, routing_key
from chatlab.brokers.rabbitmq.stream_readers import (
    FIRST_RECORD,
    Extent,
    Query,
    StreamReader,
    Tail,
    extent,
    identifier,
)
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.retry import Retry

log = logging.getLogger(__name__)

DAY = 86_400.0
SEGMENTS = 8  # of a stream that is full
SMALLEST_SEGMENT = 64 << 10  # octets
MAX_NAME = 200  # characters: a folder is named after the stream
IDLE = 60.0  # seconds without a publish after which the end of a stream is not read any more


class RabbitMQStreamsBroker(RabbitMQBroker):
    """Keeps about `max_octets` of each topic, and none much longer than `max_age` seconds (None: no limit).

    Each reader, and each topic published to within the last minute, has a channel. `patience`, `tries`: see
    `RabbitMQBroker`.
    """

    def __init__(
        self,
        url: str,
        *,
        max_octets: int = 64 << 20,
        max_age: float | None = 30 * DAY,
        patience: float = 10,
        tries: int = 5,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(url, patience=patience, tries=tries, max_waiting=max_waiting)
        self.limits: FieldTable = {  # of new streams
            "x-queue-type": "stream",
            "x-max-length-bytes": max_octets,
            "x-stream-max-segment-size-bytes": max(SMALLEST_SEGMENT, max_octets // SEGMENTS),
        }
        if max_age:
            self.limits["x-max-age"] = f"{max(1, int(max_age))}s"
        self._tails: dict[str, Tail] = {}
        self._in_order: dict[str, asyncio.Lock] = {}  # one for each topic: fair, so the order of the calls is kept
        self._known: set[str] = set()  # topics whose stream exists
        self._first_contact = asyncio.Lock()  # with any other
        self._instance = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)

    async def publish(self, topic: str, body: bytes) -> str:
        """Add one record; return its id once RabbitMQ has it. Raises BrokerUnavailable."""
        check(topic)
        sent = False
        try:
            async with asyncio.timeout(self._patience), self._tail_of(topic) as tail:
                link = await self._publishing_link()
                message_id = f"{tail.incarnation}-{self._instance}-{next(self._numbers)}"
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=message_id)
                stored, sent = tail.expect(message_id), True
                try:
                    if await link.publish(message, topic):
                        return await stored
                finally:
                    tail.forget(message_id)
        except DeliveryError as error:
            raise BrokerUnavailable(f"the broker refused the message: {error}; some queues may have it") from error
        except LOST as error:
            raise self._not_published(error, sent=sent) from error
        self._end_unrouted(topic)
        raise BrokerUnavailable(f"the stream of {topic!r} is not bound to the exchange", outcome_unknown=False)

    async def subscribe(self, topic: str, *, after: str | None = None) -> StreamReader:
        """Read from now on, or after the id `after`. Raises ValueError if that is not an id.

        If records after `after` are no longer kept, or it is not an id of this stream, the reader ends at once with
        SubscriptionLost, which says where to resume.
        """
        wanted = None if after is None else parse_id(after)
        check(topic)
        return await self._attached(StreamReader(topic, self, self, wanted))

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Record]:
        """Return the records kept after `after`, oldest first; with `limit`, only the newest `limit` of them."""
        wanted = parse_id(after)

        def start(log_now: Extent) -> int | None:
            newest = log_now.start(wanted) if limit is None else log_now.end - limit - 2 * SEGMENTS
            return None if limit == 0 else max(log_now.start(wanted), newest)

        records: list[Record] = []
        async with self._query(topic, start) as query:
            while (portion := await self._portion(query)) is not None:
                records += portion
        return records if limit is None else records[-limit:]

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records kept after `after`, bounded in number and octets."""
        wanted, page, size = parse_id(after), list[Record](), 0
        async with self._query(topic, lambda log_now: log_now.start(wanted)) as query:
            while (portion := await self._portion(query)) is not None:
                for record in portion:
                    if len(page) == limit or (page and size >= octets):
                        return Page(page, True)
                    page.append(record)
                    size += len(record.body)
        return Page(page, False)

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more are kept after `after`.

        Offsets are counted: RabbitMQ uses one itself for each segment, so a few records less may follow.
        """
        wanted = parse_id(after)
        log_now = await self._extent(topic)
        first = log_now.end - count
        return identifier(first - 1, log_now.incarnation) if first > log_now.start(wanted) else None

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none."""
        log_now = await self._extent(topic)
        return identifier(log_now.first, log_now.incarnation) if log_now.first < log_now.end else None

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if all records after `after` are kept, else the id to resume after."""
        wanted = parse_id(after)
        lost = (await self._extent(topic)).lost(topic, wanted)
        return None if lost is None else lost.resume

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`. Ids of a deleted stream come first."""
        (at, stream_of_one), (other_at, stream_of_other) = parse_id(one), parse_id(other)
        if stream_of_one == stream_of_other or not stream_of_one or not stream_of_other:
            return at < other_at
        return stream_of_one < stream_of_other  # they are times

    async def crash_risk(self) -> str:
        """Return which confirmed records a crash of RabbitMQ may lose."""
        return (
            "a crash of RabbitMQ loses nothing, but a power cut may lose the last records of a stream: one node"
            " confirms them before they are on disk; what a group has not acknowledged is kept on disk"
        )

    # --- The readers' side (stream_readers.StreamOwner) ---

    def resume(self, reader: StreamReader) -> None:
        """Open the reader's channel again, and read on from its position."""
        if self._tasks.fault:
            reader.end(SubscriptionLost(self._tasks.fault))
            return
        self._readers.add(reader)
        reader.attaching = True
        reader.resuming = self._tasks.start(
            self._attach(reader, within=None), name=f"resuming {reader.topic}", on_failure=partial(gave_up, reader)
        )

    def settle_doubt(self, reader: StreamReader) -> None:
        """Find out where the stream begins, and call `settle`."""
        self._tasks.start(
            self._settle(reader), name=f"looking for a gap in {reader.topic}", on_failure=partial(gave_up, reader)
        )

    async def _settle(self, reader: StreamReader) -> None:
        channel, doubt = reader.channel, reader.doubt
        try:
            log_now = await self._extent(reader.topic)
        except BrokerClosed:
            return
        except BrokerError as error:
            if reader.channel is channel and not reader.closed:
                await self.close_channel(reader)
                self._end(reader, f"cannot find out whether records are gone: {error}")
            return
        if reader.channel is channel and reader.doubt == doubt is not None and not reader.closed:
            reader.settle(log_now)
            await reader.acknowledge()
            if reader.closed:
                await self.close_channel(reader)

    # --- Attaching a reader to a stream ---

    async def _attached(self, reader: StreamReader) -> StreamReader:
        return await self._read(reader, self._attach(reader, within=self._patience))

    async def _attach(self, reader: StreamReader, within: float | None) -> None:
        """Consume a reader's stream; retry for `within` seconds while RabbitMQ is away (None: until it is back)."""
        errors: list[Exception] = []

        def failed(error: Exception, seconds: float) -> None:
            errors[:] = [error]
            log.info("the stream of %s cannot be read, next attempt in %.1f s: %r", reader.topic, seconds, error)

        try:
            async with asyncio.timeout(within):
                async for attempt in Retry(on=LOST, backoff=RECONNECT, within=within, on_failure=failed):
                    with attempt, as_lost():
                        while reader.lost and not reader.closed:
                            await self._attach_once(reader)
        except TimeoutError as error:
            raise errors[0] if errors else error from None
        except BrokerClosed:
            if within is not None:
                raise
        finally:
            reader.attaching = False
        if reader.closed:
            await self.close_channel(reader)

    async def _attach_once(self, reader: StreamReader) -> None:
        await self.close_channel(reader)
        reader.lost = False
        try:
            if reader.topic in self._known:
                await self._open_channel(reader, partial(self._consume_stream, reader))
            else:  # a stream that is being created has a name already, but whoever consumes it loses the connection
                async with self._first_contact:
                    await self._open_stream(reader)
                    self._known.add(reader.topic)
        except BaseException as error:
            reader.lost = True
            if isinstance(error, ChannelNotFoundEntity):  # it was deleted: the next attempt creates it
                self._known.discard(reader.topic)
            raise

    async def _open_stream(self, reader: StreamReader) -> None:
        take = partial(self._consume_stream, reader)
        try:
            await self._open_channel(reader, take)
        except ChannelNotFoundEntity:
            reader.lost = False
            await self._found(reader.topic)
            await self._open_channel(reader, take)

    async def _consume_stream(self, reader: StreamReader, link: Link, channel: AbstractChannel, _: OnMessage) -> None:
        name, plain = stream_name(reader.topic), await beneath(channel)
        await plain.queue_declare(name, passive=True)
        # With its exchange, its binding may have been deleted.
        await plain.queue_bind(name, EXCHANGE, routing_key(reader.topic))

        def found() -> None:
            self._begin(self._found(reader.topic), f"first record of {reader.topic}")

        start = reader.begin(await extent(reader, plain, name, found))
        if start is not None:
            await plain.basic_qos(prefetch_count=reader.prefetch)
            arrive = partial(reader.arrive_on, channel)
            await plain.basic_consume(name, arrive, arguments={"x-stream-offset": start})

    async def _found(self, topic: str) -> None:
        """Create a topic's stream, if it is missing, and add its first record.

        If another instance creates it meanwhile with other limits, its limits count.
        """
        name, link = stream_name(topic), await self._open_link()
        channel = await beneath(await link.channel())
        try:
            await channel.queue_declare(name, durable=True, arguments=self.limits)
            properties = aiormq.spec.Basic.Properties(
                message_id=f"{int(time.time() * 1000)}-{self._instance}", message_type=FIRST_RECORD, delivery_mode=2
            )
            await channel.basic_publish(b"", routing_key=name, properties=properties)
        except ChannelPreconditionFailed:
            log.info("the stream of %s has limits of its own", topic)
        finally:
            with contextlib.suppress(*LOST), as_lost():
                await channel.close()

    # --- Publishing ---

    @contextlib.asynccontextmanager
    async def _tail_of(self, topic: str) -> AsyncIterator[Tail]:
        """Provide the reader of a stream's end. Callers that have waited for it go on in the order of their calls."""
        async with self._in_order.setdefault(topic, asyncio.Lock()):
            tail = self._tails.get(topic)
            if (
                tail is not None and tail.resuming is not None and not tail.resuming.done()
            ):  # the stream may be a new one
                await asyncio.wait([tail.resuming])
            if tail is None or tail.closed:
                tail = self._tails[topic] = Tail(topic, self, self)
                await self._attached(tail)
        yield tail

    async def _acknowledge_once(self) -> None:
        await super()._acknowledge_once()
        now = asyncio.get_running_loop().time()
        for topic, tail in list(self._tails.items()):
            if self._in_order[topic].locked():
                continue  # a publish is about to use it
            if tail.closed or (tail.idle and not tail.attaching and now - tail.last_used > IDLE):
                del self._tails[topic], self._in_order[topic]
                await tail.aclose()

    # --- Queries ---

    async def _extent(self, topic: str) -> Extent:
        async with self._query(topic, lambda _: None) as query:
            return query.extent

    @contextlib.asynccontextmanager
    async def _query(self, topic: str, start: Callable[[Extent], int | None]) -> AsyncIterator[Query]:
        """Provide a reader of what is kept from the offset that `start` returns."""
        check(topic)
        query = Query(topic, self, self, start)
        await self._attached(query)
        try:
            if query.closed:
                raise SubscriptionLost("closed")
            yield query
        except (SubscriptionLost, TimeoutError) as error:
            raise self._unavailable(f"cannot read {topic}", error) from error
        finally:
            await query.aclose()

    async def _portion(self, query: Query) -> list[Record] | None:
        async with asyncio.timeout(self._patience):
            return await query.portion()


def gave_up(reader: StreamReader, error: Exception) -> None:
    """End a reader whose background task failed."""
    reader.end(SubscriptionLost(f"records of {reader.topic} may have been missed: {error!r}"))


def stream_name(topic: str) -> str:
    """Return the name of a topic's stream, with a digest for a long topic; no group's queue can have it."""
    name = shortened(topic, 3 * MAX_TOPIC)
    if len(name) > MAX_NAME or name.startswith("@"):
        name = hashlib.sha256(topic.encode()).hexdigest()
    return f"{name}::history"
