"""`/queue/NAME`: each record goes to one of its subscribers, on whichever instance that is.

The instances that have subscribers join one group on the queue's topic, so the engine hands each record to one of them;
here it goes to one of the local subscribers in turn. It is acknowledged to the engine once it has been written to a
subscriber that does not acknowledge, or once a subscriber that does has acknowledged it. A message that a subscriber
leaves unacknowledged goes to the next; one that it refuses (NACK) goes to a subscriber that has not refused it, if
there is one; the engine gives an instance's unfinished messages to another instance. So each message is delivered at
least once: again if it takes longer than the engine waits, and set aside by the engine if that happens too often.

A message that has been refused `MAX_REFUSALS` times is moved to `/queue/refused.NAME`, a queue like any other.

A queue starts with the first message sent to it, or with its first subscriber. Messages wait for a subscriber, as many
as the engine keeps in a topic (memory: then it takes no more; Redis: then it drops the oldest).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from chatlab.brokers.port import Broker, GroupConsumer, HasGroups, Record
from chatlab.chat.delivery.hub import Subscriber
from chatlab.chat.destinations import QUEUE_PREFIX, REFUSED_PREFIX, destination_of, pack, record_of, topic_of
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, StompError
from chatlab.retry import Retry
from chatlab.stomp.events import Delivery, Subscription
from chatlab.stomp.frames import MessageFrame
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat")

GROUP = "subscribers"
CLOSE_SECONDS = 1.0  # for the last acknowledgements to be sent
# Messages that one subscriber may hold unacknowledged; the others get the rest.
MAX_UNACKNOWLEDGED = 32
MAX_REFUSALS = 5  # of one message: if that many subscribers refused it, the next would too
MAX_KNOWN = 100_000  # queues known to exist; a forgotten one is created again, which changes nothing


@dataclass(eq=False)
class Item:
    """One record of a queue that this instance holds: until it is acknowledged, it may be delivered again."""

    queue: Queue
    message: MessageFrame
    delivery: Record
    attempt: int = 1
    refusals: int = 0
    refused_by: set[Subscription] = field(default_factory=set)


class Queue:
    """One queue's local subscribers, in the order of their turns, and the messages that wait for them."""

    def __init__(self, destination: str, broker: HasGroups, instance: str, tasks: Tasks) -> None:
        self.destination = destination
        self.subscribers: deque[Subscriber] = deque()
        self.held: dict[MessageFrame, Item] = {}  # handed to a subscriber and not acknowledged yet
        self._known: set[str] = set()  # the ids of the records that wait here or are held
        self.joined = asyncio.Event()
        self._newcomers: set[Subscriber] = set()  # those whose RECEIPT has to be sent first
        self._waiting: deque[Item] = deque()
        self._space = asyncio.Event()
        self._broker = broker
        self._instance = instance
        self._group: GroupConsumer | None = None
        self._tasks = tasks
        self._settling: set[asyncio.Task[None]] = set()  # acknowledgements in progress
        self._task = tasks.start(self._pump(), name=f"queue {destination}")

    def hand_out(self) -> None:
        """Send waiting messages to free subscribers, in turn."""
        while self._waiting and (subscriber := self._next_free(self._waiting[0])) is not None:
            item = self._waiting[0]
            if not subscriber.outlet.send_tracked(subscriber.subscription, [item.message], item.attempt):
                self.remove(subscriber)  # its session is closing
                continue
            self._waiting.popleft()
            if subscriber.acknowledges:
                self.held[item.message] = item
            else:
                self._forget(item)
        if not self._waiting:
            self._space.set()

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it takes part from `admit` on."""
        self.subscribers.append(subscriber)
        self._newcomers.add(subscriber)

    def admit(self, subscriber: Subscriber) -> None:
        """Let a subscriber receive messages: its RECEIPT has been sent."""
        self._newcomers.discard(subscriber)
        self.hand_out()

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, if present."""
        self._newcomers.discard(subscriber)
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)

    def put_back(self, item: Item) -> None:
        """Put a message that was not consumed first in line, and hand out."""
        self.held.pop(item.message, None)
        item.attempt += 1
        self._waiting.appendleft(item)
        self.hand_out()

    def refuse(self, item: Item, subscription: Subscription) -> None:
        """Pass a refused message to another subscriber, or set it aside if it was refused too often."""
        item.refusals += 1
        item.refused_by.add(subscription)
        if item.refusals < MAX_REFUSALS:
            return self.put_back(item)
        self.held.pop(item.message, None)
        self._settle_with_engine(self._set_aside(item))
        return self.hand_out()

    def settle(self, item: Item) -> None:
        """Acknowledge a message to the engine: the work is done."""
        self.held.pop(item.message, None)
        self._forget(item)
        self.hand_out()

    async def aclose(self) -> None:
        """Stop reading. Unacknowledged messages stay with the engine, for another instance."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=CLOSE_SECONDS)
        await cancel(self._task)

    def _next_free(self, item: Item) -> Subscriber | None:
        """Return the subscriber whose turn it is among the free ones; one that refused the message only if all did."""
        chosen = None
        for subscriber in filter(self._is_free, self.subscribers):
            if subscriber.subscription not in item.refused_by:
                chosen = subscriber
                break
            chosen = chosen or subscriber
        if chosen is not None:
            self.subscribers.remove(chosen)
            self.subscribers.append(chosen)
        return chosen

    def _is_free(self, subscriber: Subscriber) -> bool:
        has_space = not subscriber.acknowledges or len(subscriber.subscription.pending) < MAX_UNACKNOWLEDGED
        return has_space and subscriber not in self._newcomers

    def _forget(self, item: Item) -> None:
        self._known.discard(item.delivery.id)
        if self._group is not None:
            self._settle_with_engine(self._acknowledge(self._group, item))

    def _settle_with_engine(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.start(work, name=f"settling in {self.destination}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _set_aside(self, item: Item) -> None:
        """Move a message to the queue of refused ones; if that fails, it stays with the engine and is redelivered."""
        destination = REFUSED_PREFIX + self.destination.removeprefix(QUEUE_PREFIX)
        topic, message = topic_of(destination), item.message
        logger.warning("queue %r: %s was refused %d times", self.destination, message.id, item.refusals)
        headers = (*message.headers, ("refused", f"{item.refusals}"))
        try:
            await self._broker.create_group(topic, GROUP)  # so that the message waits for a subscriber
            await self._broker.publish(topic, pack(destination, headers, message.body))
        except BrokerError as error:
            self._known.discard(item.delivery.id)
            logger.warning("queue %r: %s was not moved to %r: %s", self.destination, message.id, destination, error)
        else:
            self._forget(item)

    async def _acknowledge(self, group: GroupConsumer, item: Item) -> None:
        try:
            await group.ack(item.delivery)
        except BrokerError as error:
            logger.warning(
                "queue %r: %s not acknowledged, it will be redelivered: %s",
                self.destination,
                item.delivery.id,
                error,
            )

    async def _pump(self) -> None:
        def log_retry(error: Exception, wait: float) -> None:
            logger.warning("queue %r cannot be read, next attempt in %.1f s: %s", self.destination, wait, error)

        retry = Retry(on=BrokerError, on_failure=log_retry)
        with suppress(BrokerClosed):
            async for attempt in retry:
                with attempt:
                    self._group = await self._broker.join(topic_of(self.destination), GROUP, self._instance)
                    self.joined.set()
                    await self._read(self._group, retry)

    async def _read(self, group: GroupConsumer, retry: Retry) -> None:
        try:
            while batch := await group.batch(MAX_UNACKNOWLEDGED):
                retry.reset()
                for delivery in batch:
                    await self._take(group, delivery)
                self._space.clear()
                self.hand_out()
                await self._space.wait()  # take no more than the subscribers here can work on
        finally:
            await group.aclose()
        raise BrokerUnavailable("the group ended this member's subscription")

    async def _take(self, group: GroupConsumer, delivery: Record) -> None:
        record = record_of(delivery)
        if record is None:
            await group.ack(delivery)
        elif delivery.id not in self._known:  # else redelivered while a subscriber here still works on it
            self._known.add(delivery.id)
            self._waiting.append(Item(self, record.message, delivery))


class Queues:
    """The queues with subscribers on this instance, and those known to exist because they were sent to."""

    def __init__(self, broker: Broker, instance: str, tasks: Tasks | None = None) -> None:
        self._broker = broker
        self._instance = instance
        self._tasks = Tasks(logger) if tasks is None else tasks
        self._queues: dict[str, Queue] = {}
        self._known: dict[str, None] = {}  # destinations known to exist: their messages wait for a subscriber
        self._closing: set[asyncio.Task[None]] = set()

    def reads(self, topic: str) -> bool:
        """Return whether the queue on a topic has a subscriber here."""
        return destination_of(topic) in self._queues

    def exists(self, destination: str) -> bool:
        """Return whether a queue is known to exist: then its messages wait for a subscriber. If not, `create` it."""
        return destination in self._known

    async def create(self, destination: str) -> None:
        """Create a queue without a subscriber. Raise StompError if the engine has no groups, or BrokerError."""
        await self._with_groups().create_group(topic_of(destination), GROUP)
        self._known[destination] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def join(self, subscriber: Subscriber) -> Queue:
        """Add a subscriber; it receives messages from `admit` on. Raise StompError if the engine has no groups."""
        broker = self._with_groups()
        queue = self._queues.get(subscriber.destination)
        if queue is None:
            queue = Queue(subscriber.destination, broker, self._instance, self._tasks)
            self._queues[subscriber.destination] = queue
        queue.add(subscriber)
        return queue

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber; when it was the last, the queue is no longer read here."""
        queue = self._queues[subscriber.destination]
        queue.remove(subscriber)
        if not queue.subscribers:
            del self._queues[subscriber.destination]
            task = self._tasks.start(queue.aclose(), name=f"leaving queue {subscriber.destination}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def acknowledged(self, delivery: Delivery) -> None:
        """Settle a message that a subscriber has acknowledged; ignore a topic's message."""
        if (item := self._item(delivery)) is not None:
            item.queue.settle(item)

    def returned(self, delivery: Delivery) -> None:
        """Give a message that a subscriber left unacknowledged to the next."""
        if (item := self._item(delivery)) is not None:
            item.queue.put_back(item)

    def refused(self, delivery: Delivery) -> None:
        """Give a message that a subscriber refused to another."""
        if (item := self._item(delivery)) is not None:
            item.queue.refuse(item, delivery.subscription)

    async def aclose(self) -> None:
        """Stop reading all queues."""
        await asyncio.gather(*(queue.aclose() for queue in self._queues.values()), *self._closing)
        self._queues.clear()

    def _with_groups(self) -> HasGroups:
        if not isinstance(self._broker, HasGroups):
            raise StompError(f"queues need a broker with groups, and {type(self._broker).__name__} has none")
        return self._broker

    def _item(self, delivery: Delivery) -> Item | None:
        queue = self._queues.get(delivery.subscription.destination)
        return queue.held.get(delivery.message) if queue is not None else None
