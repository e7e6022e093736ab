"""RabbitMQ, over AMQP 0-9-1: exchanges route, queues keep, consumers acknowledge.

A publish goes to one topic exchange, `chatlab`, with the topic as routing key, and returns when RabbitMQ confirms it.
From there a fanout exchange for each topic copies it to a queue for each open subscription; `subscribe_matching` binds
its queue to patterns such as "chat.*" instead. A group shares one durable queue. What a reader has not taken waits in
its queue, so a slow one loses nothing and holds up nobody; but a queue goes with its subscription, so there is no
history. When the connection breaks, every subscription ends with `SubscriptionLost`; what a group has not acknowledged
is still in its queue. Left out: clusters, and mirrored or stream queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
from aiormq.abc import FieldTable
from yarl import URL

from chatlab.brokers.inbox import Inbox, end_task, heard
from chatlab.brokers.names import escaped
from chatlab.brokers.port import Delivery
from chatlab.errors import BrokerError, BrokerUnavailable, SubscriptionLost

log = logging.getLogger(__name__)

EXCHANGE = "chatlab"
HEARTBEAT = 5  # seconds; a server that is silent for two of them counts as gone
PREFETCH = 1000  # messages on their way to a reader; the others wait in its queue
LOST = (AMQPError, ChannelInvalidStateError, OSError)  # what is raised when a connection has broken
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0  # seconds
GROUP_PREFETCH = 32  # records a member is handed before it has acknowledged one
MAX_TOPIC = 255  # octets: a routing key is a short string
MAX_NAME = 110  # characters: of the 127 for the name of an exchange

S = TypeVar("S", bound="QueueSubscription")
OnMessage = Callable[[AbstractIncomingMessage], Awaitable[None]]


class RabbitMQBroker:
    """One connection; a channel to publish on, and one for each subscription.

    `patience`: seconds a publish waits for a server that is away. `tries`: how often a group may be handed a record
    before it is moved to the queue TOPIC:GROUP:set-aside.
    """

    resumes = False

    def __init__(self, url: str, *, patience: float = 10, tries: int = 5) -> None:
        self._url = URL(url).update_query(heartbeat=HEARTBEAT)
        self._name = str(self._url.with_query(None).with_password("***" if self._url.password else None))
        self._patience = patience
        self._tries = tries
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._subscriptions: set[QueueSubscription] = set()
        self._under_way: set[asyncio.Future[None]] = set()
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()
        self._why: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the connection is up."""
        return self._opened.is_set()

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        try:
            await self._open()
        except LOST as error:
            raise BrokerUnavailable(f"the broker at {self._name} does not answer: {error!r}") from error
        task = asyncio.create_task(self._stay_connected(), name="rabbitmq connection")
        self._task = heard(task, lambda: self._subscriptions)

    async def publish(self, topic: str, body: bytes) -> str:
        """Return when RabbitMQ has the message; there is no id. Raises BrokerUnavailable."""
        check(topic)
        sent = False
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        try:
            async with asyncio.timeout(self._patience):
                await self._wait_until_open()
                exchange = self._exchange
                assert exchange is not None
                sent = True
                await exchange.publish(message, routing_key=topic, mandatory=False)
        except TimeoutError:
            reason = f"the broker did not confirm the message within {self._patience:g} s"
            raise BrokerUnavailable(reason, outcome_unknown=sent) from None
        except DeliveryError as error:
            raise BrokerUnavailable(f"the broker refused the message: {error}", outcome_unknown=False) from error
        except LOST as error:
            if exchange is self._exchange:  # we may see the loss before the connection's own reader does
                self._why = error
                self._opened.clear()
                self._lost.set()
            raise BrokerUnavailable(f"the broker went away: {error!r}") from error
        return ""

    async def subscribe(self, topic: str) -> QueueSubscription:
        """Read from now on. Raises BrokerUnavailable."""
        check(topic)

        async def bind(channel: AbstractChannel, queue: AbstractQueue) -> None:
            name = f"{EXCHANGE}:{escaped(topic, MAX_NAME)}"
            fanout = await channel.declare_exchange(name, aio_pika.ExchangeType.FANOUT, durable=True)
            await fanout.bind(EXCHANGE, routing_key=topic)
            await queue.bind(fanout)

        return await self._consume(topic, bind)

    async def subscribe_matching(self, pattern: str) -> QueueSubscription:
        """Read every topic that matches: words between dots, `*` for any one word, `#` for any number of words."""

        async def bind(_channel: AbstractChannel, queue: AbstractQueue) -> None:
            await queue.bind(EXCHANGE, routing_key=pattern)

        return await self._consume(pattern, bind)

    async def create_group(self, topic: str, group: str) -> None:
        """Declare the queue of `group`: it is durable, and fills whether or not a member is there."""
        declare = self._declaration(topic, group)

        async def take(channel: AbstractChannel, _on_message: OnMessage) -> None:
            await declare(channel)

        await (await self._read(WorkQueueSubscription(topic, self), take)).aclose()

    async def join(self, topic: str, group: str, member: str) -> WorkQueueSubscription:
        """Take a share of the work of `group`, whose queue is declared if it is missing."""
        declare = self._declaration(topic, group)

        async def take(channel: AbstractChannel, on_message: OnMessage) -> None:
            await channel.set_qos(GROUP_PREFETCH)
            queue = await declare(channel)
            await queue.consume(on_message, consumer_tag=f"{member}-{uuid.uuid4().hex}")

        return await self._read(WorkQueueSubscription(topic, self), take)

    def _declaration(self, topic: str, group: str) -> Callable[[AbstractChannel], Awaitable[AbstractQueue]]:
        """What declares a group's queue on a channel."""
        check(topic)
        name = f"{escaped(topic, MAX_NAME)}:{escaped(group, MAX_NAME)}"
        aside = f"{name}:set-aside"
        rules: FieldTable = {
            "x-queue-type": "quorum",  # the kind of queue that counts how often it delivers
            "x-delivery-limit": self._tries - 1,  # returns after the first delivery
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": aside,
        }

        async def declare(channel: AbstractChannel) -> AbstractQueue:
            await channel.declare_queue(aside, durable=True)
            queue = await channel.declare_queue(name, durable=True, arguments=rules)
            await queue.bind(EXCHANGE, routing_key=topic)
            return queue

        return declare

    async def aclose(self) -> None:
        """End every subscription and the connection."""
        await end_task(self._task)
        self._task = None
        self._opened.clear()
        for subscription in list(self._subscriptions):
            await subscription.aclose()
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _consume(
        self, topic: str, bind: Callable[[AbstractChannel, AbstractQueue], Awaitable[None]]
    ) -> QueueSubscription:
        async def take(channel: AbstractChannel, on_message: OnMessage) -> None:
            await channel.set_qos(PREFETCH)
            queue = await channel.declare_queue(exclusive=True, auto_delete=True)
            await bind(channel, queue)
            await queue.consume(on_message)

        return await self._read(QueueSubscription(topic, self), take)

    async def _read(self, subscription: S, take: Callable[[AbstractChannel, OnMessage], Awaitable[None]]) -> S:
        """Give a subscription its channel, and let `take` say which queue it reads."""
        self._subscriptions.add(subscription)
        opening = asyncio.create_task(self._open_channel(subscription, take))
        try:
            await self._to_the_end(opening)
        except BaseException:
            subscription.discard()
            self._keep(asyncio.create_task(self._give_up(opening, subscription)))
            raise
        return subscription

    async def _open_channel(
        self, subscription: QueueSubscription, take: Callable[[AbstractChannel, OnMessage], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._wait_until_open()
                assert self._connection is not None
                subscription.channel = await self._connection.channel(publisher_confirms=False)
                await take(subscription.channel, subscription.arrive)
        except LOST as error:  # TimeoutError is one of them
            raise BrokerUnavailable(f"cannot read {subscription.topic}: {error!r}") from error

    async def _give_up(self, opening: asyncio.Task[None], subscription: QueueSubscription) -> None:
        await asyncio.wait([opening])
        await subscription.aclose()

    async def _to_the_end(self, task: asyncio.Future[None]) -> None:
        """Wait for a task that goes on if we are cancelled: aiormq breaks its connection over a request cut short."""
        self._keep(task)
        await asyncio.shield(task)

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close_channel(self, subscription: QueueSubscription) -> None:
        """For a subscription that leaves: its queue goes with its channel."""
        self._subscriptions.discard(subscription)
        channel, subscription.channel = subscription.channel, None
        if channel is not None and not channel.is_closed:
            with contextlib.suppress(*LOST):
                await self._to_the_end(asyncio.ensure_future(channel.close()))

    async def _wait_until_open(self) -> None:
        if self._task is None:
            raise BrokerUnavailable("this broker is closed", outcome_unknown=False)
        await self._opened.wait()

    async def _open(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*LOST):
                await self._connection.close()
        self._connection = await aio_pika.connect(self._url, timeout=self._patience)
        self._connection.close_callbacks.add(self._lose)
        channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        self._lost.clear()
        self._opened.set()

    def _lose(self, connection: object, error: BaseException | None) -> None:
        """Every queue of an open subscription is gone with the connection: say so to its reader."""
        if connection is not self._connection:
            return
        self._why = error
        self._opened.clear()
        self._lost.set()
        for subscription in list(self._subscriptions):
            subscription.end(SubscriptionLost(f"messages may have been missed: {error!r}"))
        self._subscriptions.clear()

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            await self._lost.wait()
            log.warning("the broker at %s went away: %r", self._name, self._why)
            while not self._opened.is_set():
                try:
                    await self._open()
                    failures = 0
                    log.info("connected again")
                except LOST:
                    failures += 1
                    await asyncio.sleep(random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures, 16))))


class QueueSubscription(Inbox):
    """A queue of our own in RabbitMQ, and the part of it that has arrived here."""

    def __init__(self, topic: str, broker: RabbitMQBroker) -> None:
        super().__init__(topic)
        self.channel: AbstractChannel | None = None
        self._broker = broker
        self._handed_out = 0  # of the channel's messages, which are numbered from 1
        self._acknowledged = 0

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        """What RabbitMQ pushed."""
        self.put([Delivery(message.routing_key or self.topic, "", message.body)])

    async def batch(self, limit: int = 512) -> Sequence[Delivery]:
        """Wait for messages, then return those that are here; empty once it is closed. Raises SubscriptionLost."""
        await self._ask_for_more()
        here = await super().batch(limit)
        self._handed_out += len(here)
        return here

    async def aclose(self) -> None:
        """Stop reading; the queue goes."""
        self.discard()
        await self._broker.close_channel(self)

    async def _ask_for_more(self) -> None:
        """Acknowledge what was handed out, once it is half of what RabbitMQ sends ahead."""
        if self._handed_out - self._acknowledged >= PREFETCH // 2 and self.channel is not None and not self.closed:
            self._acknowledged = self._handed_out
            with contextlib.suppress(*LOST):  # the subscription's end will say so
                channel = await self.channel.get_underlay_channel()
                await channel.basic_ack(self._acknowledged, multiple=True)


class WorkQueueSubscription(QueueSubscription):
    """A member's part of the queue its group shares. A record's id is its delivery tag, good for this member only."""

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        """What RabbitMQ gave to this member."""
        self.put([Delivery(self.topic, str(message.delivery_tag), message.body)])

    async def batch(self, limit: int = 512) -> Sequence[Delivery]:
        """Wait for records, then return those that are here; empty once it is closed. Raises SubscriptionLost."""
        return await Inbox.batch(self, limit)

    async def ack(self, delivery: Delivery) -> None:
        """The work is done. Raises BrokerUnavailable if the connection is gone: the record will come again."""
        try:
            assert self.channel is not None
            channel = await self.channel.get_underlay_channel()
            await channel.basic_ack(int(delivery.id))
        except LOST as error:
            raise BrokerUnavailable(f"the broker went away before it was told: {error!r}") from error


def check(topic: str) -> None:
    """Raise BrokerError for a topic that is no routing key, or that would match others as a pattern."""
    if len(topic.encode()) > MAX_TOPIC or any(word in ("*", "#") for word in topic.split(".")):
        raise BrokerError(f"not a topic for RabbitMQ (at most {MAX_TOPIC} octets, no word `*` or `#`): {topic[:60]!r}")
