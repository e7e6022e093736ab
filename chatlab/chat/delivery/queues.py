"""`/queue/NAME`: each record to one of its subscribers, on whichever instance that is.

The instances that have subscribers join one group on the queue's topic, so that the engine hands each record to one
of them; here it goes to one of the local subscribers in turn. It is acknowledged to the engine once it was written
to a subscriber that does not acknowledge, or once one that does has acknowledged it. What a subscriber leaves behind
goes to the next; what it refuses (NACK) to one that has not refused it, if there is one; what an instance leaves
undone, the engine gives to another. So each message is delivered at least once: again, if it takes longer than the
engine waits, and set aside by the engine if that happens too often.

A message that was refused `MAX_REFUSALS` times is moved to `/queue/refused.NAME`, a queue like any other.

A queue begins with the first message sent to it, or the first subscriber: messages wait for a subscriber, as many as
the engine keeps of a topic (memory: then it takes no more; Redis: then it drops the oldest).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from chatlab.brokers.port import Broker, GroupConsumer, HasGroups
from chatlab.brokers.port import Record as BrokerDelivery
from chatlab.chat.delivery.hub import Subscriber
from chatlab.chat.destinations import QUEUE_PREFIX, REFUSED_PREFIX, destination_of, pack, record_of, topic_of
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, StompError
from chatlab.retry import Retry
from chatlab.stomp.events import Delivery, Subscription
from chatlab.stomp.frames import MessageFrame
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat")

GROUP = "subscribers"
GOODBYE_SECONDS = 1.0  # for the last acknowledgements to arrive
# Messages a subscriber may hold without having acknowledged them: the others get the rest.
MAX_UNACKNOWLEDGED = 32
MAX_REFUSALS = 5  # of one message: what so many have refused, the next would too
MAX_KNOWN = 100_000  # queues whose group is known to be there; for one that was forgotten, it is looked for again


@dataclass(eq=False)
class Item:
    """One record of a queue that this instance holds: until it is acknowledged it may come back."""

    queue: Queue
    message: MessageFrame
    delivery: BrokerDelivery
    attempt: int = 1
    refusals: int = 0
    refused_by: set[Subscription] = field(default_factory=set)


class Queue:
    """One queue's local subscribers, in the order of their turns, and what waits for them."""

    def __init__(self, destination: str, broker: HasGroups, instance: str, tasks: Tasks) -> None:
        self.destination = destination
        self.subscribers: deque[Subscriber] = deque()
        self.held: dict[MessageFrame, Item] = {}  # handed to a subscriber that has not acknowledged it yet
        self._known: set[str] = set()  # the ids of those that wait here or are held
        self.joined = asyncio.Event()
        self._newcomers: set[Subscriber] = set()  # whose RECEIPT is to come first
        self._waiting: deque[Item] = deque()
        self._room = asyncio.Event()
        self._broker = broker
        self._instance = instance
        self._group: GroupConsumer | None = None
        self._tasks = tasks
        self._settling: set[asyncio.Task[None]] = set()  # acknowledgements under way
        self._task = tasks.start(self._pump(), name=f"queue {destination}")

    def hand_out(self) -> None:
        """Give what waits to whoever is free, in turn."""
        while self._waiting and (subscriber := self._next_free(self._waiting[0])) is not None:
            item = self._waiting[0]
            if not subscriber.outlet.send_tracked(subscriber.subscription, [item.message], item.attempt):
                self.remove(subscriber)  # its session is closing, and it is about to leave
                continue
            self._waiting.popleft()
            if subscriber.acknowledges:
                self.held[item.message] = item
            else:
                self._forget(item)
        if not self._waiting:
            self._room.set()

    def add(self, subscriber: Subscriber) -> None:
        """Let a subscriber take its turns from `begin` on."""
        self.subscribers.append(subscriber)
        self._newcomers.add(subscriber)

    def begin(self, subscriber: Subscriber) -> None:
        """Its RECEIPT is out: it may have messages."""
        self._newcomers.discard(subscriber)
        self.hand_out()

    def remove(self, subscriber: Subscriber) -> None:
        """Let a subscriber go."""
        self._newcomers.discard(subscriber)
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)

    def put_back(self, item: Item) -> None:
        """One that was not consumed is the next to be handed out."""
        self.held.pop(item.message, None)
        item.attempt += 1
        self._waiting.appendleft(item)
        self.hand_out()

    def refuse(self, item: Item, subscription: Subscription) -> None:
        """One that was refused goes to somebody else, or out of the way if that has happened too often."""
        item.refusals += 1
        item.refused_by.add(subscription)
        if item.refusals < MAX_REFUSALS:
            return self.put_back(item)
        self.held.pop(item.message, None)
        self._settle_with_engine(self._set_aside(item))
        return self.hand_out()

    def settle(self, item: Item) -> None:
        """The work is done: the engine may forget it."""
        self.held.pop(item.message, None)
        self._forget(item)
        self.hand_out()

    async def aclose(self) -> None:
        """Stop reading. What was not acknowledged stays with the engine, for another instance."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=GOODBYE_SECONDS)
        await cancel(self._task)

    def _next_free(self, item: Item) -> Subscriber | None:
        """Whose turn it is, of those that have room; one that has refused the message, only if there is no other."""
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
        has_room = not subscriber.acknowledges or len(subscriber.subscription.pending) < MAX_UNACKNOWLEDGED
        return has_room and subscriber not in self._newcomers

    def _forget(self, item: Item) -> None:
        self._known.discard(item.delivery.id)
        if self._group is not None:
            self._settle_with_engine(self._acknowledge(self._group, item))

    def _settle_with_engine(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.start(work, name=f"settling in {self.destination}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _set_aside(self, item: Item) -> None:
        """Move a message where somebody can look at it; if that fails it stays with the engine, and comes again."""
        destination = REFUSED_PREFIX + self.destination.removeprefix(QUEUE_PREFIX)
        topic, message = topic_of(destination), item.message
        logger.warning("queue %r: %s was refused %d times", self.destination, message.id, item.refusals)
        headers = (*message.headers, ("refused", f"{item.refusals}"))
        try:
            await self._broker.create_group(topic, GROUP)  # so that it waits for somebody
            await self._broker.publish(topic, pack(destination, headers, message.body))
        except BrokerError as error:
            self._known.discard(item.delivery.id)
            logger.warning("queue %r: %s not moved to %r: %s", self.destination, message.id, destination, error)
        else:
            self._forget(item)

    async def _acknowledge(self, group: GroupConsumer, item: Item) -> None:
        try:
            await group.ack(item.delivery)
        except BrokerError as error:
            logger.warning(
                "queue %r: %s not acknowledged, it will come again: %s", self.destination, item.delivery.id, error
            )

    async def _pump(self) -> None:
        def note(error: Exception, wait: float) -> None:
            logger.warning("queue %r is not being read, next try in %.1f s: %s", self.destination, wait, error)

        retry = Retry(on=BrokerError, on_failure=note)
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
                self._room.clear()
                self.hand_out()
                await self._room.wait()  # no more is taken than somebody here can work on
        finally:
            await group.aclose()
        raise BrokerUnavailable("the group let its member go")

    async def _take(self, group: GroupConsumer, delivery: BrokerDelivery) -> None:
        record = record_of(delivery)
        if record is None:
            await group.ack(delivery)
        elif delivery.id not in self._known:  # the engine offers again what takes long; here somebody is at it already
            self._known.add(delivery.id)
            self._waiting.append(Item(self, record.message, delivery))


class Queues:
    """The queues that somebody on this instance subscribes to, and those that have been sent to."""

    def __init__(self, broker: Broker, instance: str, tasks: Tasks | None = None) -> None:
        self._broker = broker
        self._instance = instance
        self._tasks = Tasks(logger) if tasks is None else tasks
        self._queues: dict[str, Queue] = {}
        self._known: dict[str, None] = {}  # destinations whose group is there: what is published now waits for somebody
        self._closing: set[asyncio.Task[None]] = set()

    def reads(self, topic: str) -> bool:
        """Whether somebody here subscribes to the queue on a topic."""
        return destination_of(topic) in self._queues

    def keeps(self, destination: str) -> bool:
        """Whether what is sent to a queue now waits for a subscriber. If not, `found` it first."""
        return destination in self._known

    async def found(self, destination: str) -> None:
        """Let a queue begin, without a subscriber. StompError if the engine has no groups; BrokerError."""
        await self._with_groups().create_group(topic_of(destination), GROUP)
        self._known[destination] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def join(self, subscriber: Subscriber) -> Queue:
        """Let a subscriber take its turns, once `begin` says so. StompError if the engine has no groups."""
        broker = self._with_groups()
        queue = self._queues.get(subscriber.destination)
        if queue is None:
            queue = Queue(subscriber.destination, broker, self._instance, self._tasks)
            self._queues[subscriber.destination] = queue
        queue.add(subscriber)
        return queue

    def leave(self, subscriber: Subscriber) -> None:
        """Let a subscriber go; the last one's queue is no longer read here."""
        queue = self._queues[subscriber.destination]
        queue.remove(subscriber)
        if not queue.subscribers:
            del self._queues[subscriber.destination]
            task = self._tasks.start(queue.aclose(), name=f"leaving queue {subscriber.destination}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def acknowledged(self, delivery: Delivery) -> None:
        """A subscriber has done the work; of no matter here if it was a topic's message."""
        if (item := self._item(delivery)) is not None:
            item.queue.settle(item)

    def returned(self, delivery: Delivery) -> None:
        """A subscriber has left the work undone: it is the next one's."""
        if (item := self._item(delivery)) is not None:
            item.queue.put_back(item)

    def refused(self, delivery: Delivery) -> None:
        """A subscriber has refused the work: it is another's."""
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
