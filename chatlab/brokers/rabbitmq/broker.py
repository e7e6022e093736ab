"""RabbitMQ, over AMQP 0-9-1: an exchange routes, queues keep, consumers acknowledge.

A publish goes to one topic exchange, `chatlab`, with the topic as routing key, and returns when RabbitMQ confirms it.
The exchange copies it to a queue for each open reader; `subscribe_matching` binds its queue to patterns such as
"chat.*". A group shares one durable queue.

A queue is deleted with its reader, so there is no history here; streams.py has it. A reader that stops reading fills
its queue; when that is full, RabbitMQ drops the oldest message, and the reader ends. A group's queue has no limit: it
is on disk, and its work waits as long as necessary.

Anything that ends a consumer in RabbitMQ ends the reader here, with `SubscriptionLost`: the connection breaks; RabbitMQ
closes the channel (a record was not acknowledged for half an hour) or cancels the consumer (its queue was deleted); the
exchange is deleted; a message is dropped. What a group has not acknowledged stays in its queue and is redelivered. Work
is lost only if that queue is deleted, or the exchange while the group has no member.

Left out: clusters; returning a group's record without counting the delivery (RabbitMQ counts every return).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError
from aiormq.abc import FieldTable
from yarl import URL

from chatlab.brokers.inbox import Inbox
from chatlab.brokers.names import shortened
from chatlab.brokers.port import Record
from chatlab.brokers.probe import PATIENCE, Probe
from chatlab.brokers.rabbitmq.link import (
    EXCHANGE,
    LOST,
    PROBE_TYPE,
    Link,
    as_lost,
    declare_reader_queue,
    on_cancel,
    routing_key,
)
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, LinkLost, SubscriptionLost
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

HEARTBEAT = 5  # seconds
PREFETCH = 1000  # messages on their way to a reader; the rest wait in its queue
MAX_WAITING = 100_000  # messages in a reader's queue, and
MAX_WAITING_OCTETS = 256 << 20  # their size: a reader further behind than that has stopped reading
ACKNOWLEDGE = 10.0  # seconds between two acknowledgements for quiet readers
GROUP_PREFETCH = 32  # unacknowledged records of a member
MAX_NAME = 110  # characters: two of them and a little more make the name of a queue, which may have 255
RECONNECT = Backoff(first=0.1, longest=2.0)

S = TypeVar("S", bound="QueueReader")
OnMessage = Callable[[AbstractIncomingMessage], Awaitable[None]]
Bind = Callable[[AbstractQueue], Awaitable[object]]
Take = Callable[[Link, AbstractChannel, OnMessage], Awaitable[None]]


class RabbitMQBroker:
    """One connection; a channel to publish on, and one for each reader.

    `patience`: seconds a publish waits for a server that is away. `tries`: how often a record is delivered to a
    group before it is moved to the queue TOPIC:GROUP:set-aside. `max_waiting`: messages that may wait in RabbitMQ for a
    reader, in addition to the 1,000 on their way to it.
    """

    few_topics = True  # each reader has a channel, and a connection has at most about 2,000

    def __init__(self, url: str, *, patience: float = 10, tries: int = 5, max_waiting: int = MAX_WAITING) -> None:
        self._url = URL(url).update_query(heartbeat=HEARTBEAT)
        self._name = str(self._url.with_query(None).with_password("***" if self._url.password else None))
        self._patience = patience
        self._tries = tries
        self._max_waiting = max_waiting
        self._link: Link | None = None  # while it is up
        self._settled = asyncio.Event()  # set while the link is up, and when the broker is closed
        self._closed = True
        self._readers: set[QueueReader] = set()
        self._shared: set[str] = set()  # topics with a group's queue, which must exist even without members
        self._tasks = Tasks(log)
        self._probe = Probe(self._try_to_read)

    @property
    def connected(self) -> bool:
        """Return whether the connection is up and the last probe through the exchange was confirmed."""
        return self._link is not None and self._link.answers and not self._tasks.fault

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        try:
            await self._connect()
        except LOST as error:
            raise BrokerUnavailable(f"the broker at {self._name} does not answer: {error!r}") from error
        self._closed = False
        self._tasks.start(self._stay_connected(), name="rabbitmq connection", on_failure=self._fail)
        self._tasks.start(self._acknowledge(), name="rabbitmq acknowledgements", on_failure=self._fail)

    async def publish(self, topic: str, body: bytes) -> str:
        """Publish; return once RabbitMQ has confirmed the message; there is no id. Raises BrokerUnavailable."""
        check(topic)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        sent = False
        try:
            async with asyncio.timeout(self._patience):
                link = await self._publishing_link()
                sent = True
                routed = await link.publish(message, topic)
        except DeliveryError as error:
            raise BrokerUnavailable(f"the broker refused the message: {error}; some queues may have it") from error
        except LOST as error:
            raise self._not_published(error, sent=sent) from error
        if not routed and (self._end_unrouted(topic) or topic in self._shared):
            reason = f"no queue accepted the message, although {topic!r} had readers here"
            raise BrokerUnavailable(reason, outcome_unknown=False)
        return ""

    async def subscribe(self, topic: str) -> QueueReader:
        """Read from now on. Raises BrokerUnavailable."""
        check(topic)
        return await self._consume(QueueReader(topic, self), lambda queue: queue.bind(EXCHANGE, routing_key(topic)))

    async def subscribe_matching(self, pattern: str) -> QueueReader:
        """Read every topic that matches: words between dots, `*` for any one word, `#` for any number of words."""
        return await self._consume(PatternReader(pattern, self), lambda queue: queue.bind(EXCHANGE, pattern))

    async def create_group(self, topic: str, group: str) -> None:
        """Declare the queue of `group`: it is durable, and collects records even without members."""

        async def take(_link: Link, channel: AbstractChannel, _on_message: OnMessage) -> None:
            await self._declare_group(channel, topic, group)

        founder = WorkQueueReader(topic, self)
        await (await self._read(founder, self._open_channel(founder, take))).aclose()

    async def join(self, topic: str, group: str, member: str) -> WorkQueueReader:
        """Join `group`; declare its queue if it is missing."""

        async def take(_link: Link, channel: AbstractChannel, on_message: OnMessage) -> None:
            await channel.set_qos(GROUP_PREFETCH)
            queue = await self._declare_group(channel, topic, group)
            await queue.consume(on_message, consumer_tag=f"{member}-{uuid.uuid4().hex}")

        worker = WorkQueueReader(topic, self)
        return await self._read(worker, self._open_channel(worker, take))

    async def crash_risk(self) -> str:
        """Return which confirmed records a crash of RabbitMQ may lose."""
        return (
            "messages that a reader has not received yet are lost when RabbitMQ stops, and its readers are notified;"
            " what a group has not acknowledged is kept on disk"
        )

    async def why_refused(self) -> str:
        """Return "" if a new reader gets its channel and its queue now, else why not.

        That RabbitMQ takes messages is tried once a second (link.py), and `connected` says it.
        """
        return await self._probe.why_refused()

    async def _try_to_read(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                await (await RabbitMQBroker.subscribe(self, PROBE_TYPE)).aclose()
        except TimeoutError:
            return f"the broker at {self._name} does not answer a new reader within {PATIENCE:g} s"
        except BrokerError as error:
            return f"the broker at {self._name} refuses a new reader: {error}"
        return ""

    async def aclose(self) -> None:
        """Close every reader and the connection."""
        self._closed = True
        link, self._link = self._link, None
        self._settled.set()
        readers = list(self._readers)
        for reader in readers:
            reader.discard()
        self._readers.clear()
        if link is not None:
            await link.aclose()  # this deletes the queues of its readers
        await self._tasks.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def close_channel(self, reader: QueueReader) -> None:
        """Close the channel of a reader that leaves: its queue is deleted with it."""
        self._readers.discard(reader)
        channel, reader.channel = reader.channel, None
        if channel is not None and not channel.is_closed and not self._closed:
            with contextlib.suppress(*LOST), as_lost():
                await asyncio.shield(self._begin(channel.close(), f"leaving {reader.topic}"))

    async def _consume(self, reader: S, bind: Bind) -> S:
        async def take(link: Link, channel: AbstractChannel, on_message: OnMessage) -> None:
            await channel.set_qos(PREFETCH)
            queue = await declare_reader_queue(channel, link.watch_queue, self._max_waiting, MAX_WAITING_OCTETS)
            reader.queue = queue.name
            await bind(queue)
            await queue.consume(on_message)

        return await self._read(reader, self._open_channel(reader, take))

    async def _declare_group(self, channel: AbstractChannel, topic: str, group: str) -> AbstractQueue:
        check(topic)
        name = f"{shortened(topic, MAX_NAME)}:{shortened(group, MAX_NAME)}"
        aside = f"{name}:set-aside"
        rules: FieldTable = {
            "x-queue-type": "quorum",  # the kind of queue that counts how often it delivers
            "x-delivery-limit": self._tries - 1,  # returns after the first delivery
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": aside,
        }
        await channel.declare_queue(aside, durable=True)
        queue = await channel.declare_queue(name, durable=True, arguments=rules)
        await queue.bind(EXCHANGE, routing_key=routing_key(topic))
        self._shared.add(topic)
        return queue

    async def _read(self, reader: S, work: Awaitable[None]) -> S:
        """Await `work`, which opens a reader's channel; on failure, nothing stays open."""
        opening = self._begin(work, f"subscribing to {reader.topic}")
        try:
            with as_lost():
                error = await asyncio.shield(opening)
        except LinkLost as closed:
            error = closed
        except asyncio.CancelledError:
            reader.discard()
            self._tasks.start(self._give_up(opening, reader), name=f"giving up {reader.topic}")
            raise
        if error is not None:
            await reader.aclose()
            raise self._unavailable(f"cannot read {reader.topic}", error) from error
        return reader

    async def _open_channel(self, reader: QueueReader, take: Take) -> None:
        """Open a reader's channel; `take` declares the queue and consumes from it."""
        async with asyncio.timeout(self._patience):
            link = await self._open_link()
            channel = reader.channel = await link.channel()

            def ended(reason: str) -> None:
                if reader.channel is channel:
                    self._end(reader, reason)

            channel.close_callbacks.add(lambda _, error: ended(f"its channel closed: {error!r}"))
            await on_cancel(channel, lambda: ended("RabbitMQ cancelled its consumer"))
            self._readers.add(reader)
            await take(link, channel, reader.arrive)
        reader.reading = True

    async def _give_up(self, opening: asyncio.Task[Exception | None], reader: QueueReader) -> None:
        await asyncio.wait([opening])
        await reader.aclose()

    def _begin(self, work: Awaitable[None], name: str) -> asyncio.Task[Exception | None]:
        """Start a task that goes on if its caller is cancelled: aiormq closes the channel of an interrupted request.

        The task returns its error instead of raising it: the error concerns its caller alone.
        """

        async def outcome() -> Exception | None:
            try:
                with as_lost():
                    await work
            except (*LOST, BrokerError) as error:
                return error
            return None

        return self._tasks.start(outcome(), name=name)

    def _unavailable(self, what: str, error: Exception) -> BrokerError:
        if self._closed:
            return BrokerClosed(f"{what}: the broker at {self._name} is closed")
        return BrokerUnavailable(f"{what}: {error!r}")

    def _not_published(self, error: Exception, *, sent: bool) -> BrokerError:
        """Return the error for a publish that ended with `error`, with what is known of its message."""
        if self._closed:
            what = f"the broker at {self._name} was closed"
        elif isinstance(error, TimeoutError):
            what = f"the broker at {self._name} did not {'confirm' if sent else 'accept'} the message"
            what += f" within {self._patience:g} s"
        else:
            what = f"publishing failed: {error!r}"
        return BrokerClosed(what) if self._closed and not sent else BrokerUnavailable(what, outcome_unknown=sent)

    def _end_unrouted(self, topic: str) -> bool:
        """End the readers that an unrouted message should have reached; return whether there are any."""
        unrouted = [reader for reader in self._readers if reader.reading and reader.topic == topic]
        for unreachable in unrouted:
            self._end(unreachable, "the exchange no longer routes to its queue")
        return bool(unrouted)

    async def _open_link(self) -> Link:
        """Return the connection once it is up. Raises BrokerClosed."""
        while not self._closed:
            if self._link is not None:
                return self._link
            await self._settled.wait()
        raise BrokerClosed(f"the broker at {self._name} is closed")

    async def _publishing_link(self) -> Link:
        """Return the connection once it accepts messages."""
        while True:
            link = await self._open_link()
            try:
                await link.ready()
                await link.prepare()
            except LOST:
                if link is self._link:
                    raise
            else:
                return link

    async def _connect(self) -> Link:
        link = Link(self._url, lambda reason: self._lose(link, reason), self._dropped)
        await link.open(self._patience)
        self._link = link
        self._settled.set()
        return link

    async def _stay_connected(self) -> None:
        retry = Retry(on=LOST, backoff=RECONNECT, on_failure=lambda error, _: self._log_loss(error, retry.failures))
        async for attempt in retry:
            with attempt:
                link = self._link or await self._connect()
                if retry.failures:
                    log.info("reconnected to the broker at %s", self._name)
                    retry.reset()
                try:
                    await link.watch()
                finally:
                    await link.aclose()

    def _log_loss(self, error: Exception, failures: int) -> None:
        level = logging.WARNING if failures == 1 and not self._closed else logging.DEBUG
        log.log(level, "lost the connection to the broker at %s: %s", self._name, error)

    def _lose(self, link: Link, reason: str) -> None:
        """End all readers: the link and their queues are gone, or nothing is routed to them any more."""
        if link is self._link:
            self._link = None
            self._settled.clear()
            self._end_all(reason)

    def _end_all(self, reason: str) -> None:
        for reader in list(self._readers):
            self._end(reader, reason)

    def _end(self, reader: QueueReader, reason: str) -> None:
        """End a reader with SubscriptionLost, unless it or the broker is closed."""
        self._readers.discard(reader)
        if not reader.closed and not self._closed:
            reader.lose(f"messages of {reader.topic} may have been missed: {reason}")

    def _dropped(self, queue: str, reason: str) -> None:
        for reader in list(self._readers):
            if reader.queue == queue:
                self._end(reader, f"RabbitMQ dropped a message that waited for its reader ({reason})")

    def _fail(self, error: Exception) -> None:
        self._end_all(f"a background task failed: {error!r}")

    async def _acknowledge(self) -> None:
        """Acknowledge for quiet readers: RabbitMQ closes a channel that leaves records unacknowledged for too long."""
        while True:
            await asyncio.sleep(ACKNOWLEDGE)
            await self._acknowledge_once()

    async def _acknowledge_once(self) -> None:
        for reader in list(self._readers):
            await reader.acknowledge()


class QueueReader(Inbox):
    """A reader's queue in RabbitMQ, and the part of it that has arrived here."""

    def __init__(self, topic: str, broker: RabbitMQBroker) -> None:
        super().__init__(topic)
        self.channel: AbstractChannel | None = None
        self.queue = ""  # its name in RabbitMQ
        self.reading = False  # its queue is bound and consumed
        self._broker = broker
        self._key = routing_key(topic)
        self._handed_out = 0  # of the channel's messages, which are numbered from 1
        self._acknowledged = 0

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        """Add a message that RabbitMQ pushed."""
        key = message.routing_key
        self.put([Record(self.topic if not key or key == self._key else key, "", message.body)])

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for messages, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        if self._handed_out - self._acknowledged >= PREFETCH // 2:
            await self.acknowledge()
        here = await super().batch(limit)
        self._handed_out += len(here)
        return here

    async def acknowledge(self) -> None:
        """Acknowledge all that was handed out, so that RabbitMQ sends more."""
        if self._handed_out > self._acknowledged and self.channel is not None and not self.closed:
            self._acknowledged = self._handed_out
            with contextlib.suppress(*LOST), as_lost():  # the reader then ends with the reason
                channel = await self.channel.get_underlay_channel()
                await channel.basic_ack(self._acknowledged, multiple=True, wait=False)

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost, after what has arrived."""
        self.end(SubscriptionLost(reason))

    async def aclose(self) -> None:
        """Stop reading; the queue is deleted."""
        self.discard()
        await self._broker.close_channel(self)


class PatternReader(QueueReader):
    """A reader whose queue may be bound to every topic, so that it also receives probes."""

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        """Add a message that RabbitMQ pushed, unless it is a probe."""
        if message.type == PROBE_TYPE:
            self._handed_out += 1
        else:
            await super().arrive(message)


class WorkQueueReader(QueueReader):
    """A member's part of the queue its group shares.

    A record's id is the message's, so it is the same for each member that receives it. A member that RabbitMQ has
    cancelled delivers nothing more: all that it has not acknowledged is redelivered.
    """

    def __init__(self, topic: str, broker: RabbitMQBroker) -> None:
        super().__init__(topic, broker)
        self._name = uuid.uuid4().hex
        self._tags: dict[str, int] = {}  # the delivery tag of each record that is not acknowledged

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        """Add a message that RabbitMQ pushed to this member."""
        identifier, tag = message.message_id or "", message.delivery_tag or 0
        if not SAFE_ID.fullmatch(identifier) or identifier in self._tags:
            identifier = f"{self._name}-{tag}"  # a message of another publisher
        self._tags[identifier] = tag
        self.put([Record(self.topic, identifier, message.body)])

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        return await Inbox.batch(self, limit)

    async def acknowledge(self) -> None:
        """Do nothing: only `ack` says that work is done."""

    async def ack(self, record: Record) -> None:
        """Acknowledge a record. Raises BrokerUnavailable if that is not possible: the record is redelivered."""
        channel, tag = self.channel, self._tags.get(record.id)
        if tag is None or channel is None or self.closed:
            reason = f"record {record.id!r} no longer belongs to this member; unless acknowledged, it is redelivered"
            raise BrokerUnavailable(reason)
        try:
            with as_lost():
                await (await channel.get_underlay_channel()).basic_ack(tag)
        except LOST as error:
            raise BrokerUnavailable(f"the connection was lost before the acknowledgement: {error!r}") from error
        self._tags.pop(record.id, None)

    def lose(self, reason: str) -> None:
        """End with SubscriptionLost at once."""
        self._waiting.clear()
        super().lose(reason)


SAFE_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # ids that are safe inside other formats


def check(topic: str) -> None:
    """Raise BrokerError for a topic that would match other topics as a pattern."""
    if any(word in ("*", "#") for word in topic.split(".")):
        raise BrokerError(f"not a valid topic for RabbitMQ (no word `*` or `#`): {topic[:60]!r}")
