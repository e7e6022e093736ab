"""One connection to RabbitMQ: a channel to publish on, channels for readers, and a watch for unannounced losses.

RabbitMQ announces that a connection, a channel or a consumer has ended. It does not announce two losses to the readers
concerned: an exchange that was deleted, with every binding from it to a queue; and messages that were dropped from a
full queue or have expired. So each link has a watch queue:

    probe       once a second, a message goes through the exchange to the watch queue. If it comes back as
                unroutable, the bindings of every reader are gone too: the link is lost.
    drops       readers' queues have the watch queue as their dead-letter target. What arrives there names the queue
                that dropped it, so its reader can be ended.

The probe also shows whether RabbitMQ accepts messages: under a memory or disk alarm it does not.

Left out: reconnecting (`broker.py`); noticing that an operator has purged a queue, or removed one binding
of a topic that has others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import (
    AMQPChannelError,
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from yarl import URL

from chatlab.errors import LinkLost

EXCHANGE = "chatlab"
MAX_TOPIC = 255  # octets: a routing key is a short string
PROBE = 1.0  # seconds between two probes
PROBE_PATIENCE = 3.0  # seconds without a confirmation after which RabbitMQ counts as not answering
CLOSE_PATIENCE = 3.0  # seconds for a clean close with a server that may be frozen
PROBE_TYPE = "chatlab.probe"  # the AMQP property `type` of a probe, which a reader of every topic skips

# What is raised when a connection or a channel has broken. TimeoutError is an OSError.
LOST = (AMQPError, ChannelInvalidStateError, OSError, LinkLost)


class Link:
    """An open connection. Once it is lost, `lost` has the reason.

    `on_lost` is called once with that reason; `on_drop` with the name of a queue that has dropped messages, and the
    reason RabbitMQ gives ("maxlen", "expired").
    """

    def __init__(self, url: URL, on_lost: Callable[[str], None], on_drop: Callable[[str, str], None]) -> None:
        self.answers = False  # whether the last probe was confirmed in time
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.watch_queue = ""
        self._url = url
        self._on_lost = on_lost
        self._on_drop = on_drop
        self._connection: AbstractConnection | None = None
        self._publisher: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None  # on that channel
        self._watched: AbstractExchange | None = None
        self._opening = asyncio.Lock()  # of the channel to publish on

    async def open(self, patience: float) -> None:
        """Connect, declare the exchange, and start to watch. Raises one of `LOST`."""
        try:
            with as_lost():
                self._connection = aio_pika.Connection(self._url)
                await self._connection.connect(timeout=patience)
                self._connection.close_callbacks.add(lambda _, error: self.lose(f"the connection broke: {error!r}"))
                await self._watch()
                await self._open_publisher()
            await self._probe()  # not confirmed under an alarm, but readers are served anyway
            if self.lost.done():
                raise LinkLost(self.lost.result())
        except BaseException:
            await self.aclose()
            raise

    async def ready(self) -> None:
        """Wait until RabbitMQ accepts messages: it blocks connections while it is short of memory or disk space."""
        assert self._connection is not None
        if (transport := self._connection.transport) is None:
            raise LinkLost("the connection is closed")
        await transport.ready()

    async def prepare(self) -> None:
        """Make sure there is a channel to publish on: RabbitMQ may have closed the last. Raises one of `LOST`."""
        if self._publisher is None or self._publisher.is_closed:
            async with self._opening:
                if self._publisher is None or self._publisher.is_closed:
                    await self._open_publisher()

    async def publish(self, message: aio_pika.Message, topic: str) -> bool:
        """Publish; return whether any queue got the message. Raises one of `LOST`, or DeliveryError."""
        assert self._exchange is not None
        try:
            with as_lost():
                # Without `mandatory`, RabbitMQ would confirm and drop a message that no queue is bound for.
                await self._exchange.publish(message, routing_key=routing_key(topic), mandatory=True)
        except PublishError:
            return False
        except ChannelNotFoundEntity as error:
            self.lose(f"the exchange {EXCHANGE!r} was deleted: {error!r}")
            raise
        return True

    async def channel(self) -> AbstractChannel:
        """Open a channel for a reader. Raises one of `LOST`."""
        return await self._open_channel(publisher_confirms=False)

    async def watch(self) -> None:
        """Probe once a second until the link is lost; then raise LinkLost."""
        while not self.lost.done():
            await asyncio.wait([self.lost], timeout=PROBE)
            if not self.lost.done():
                await self._probe()
        raise LinkLost(self.lost.result())

    def lose(self, reason: str) -> None:
        """Mark the link as lost."""
        if not self.lost.done():
            self.answers = False
            self.lost.set_result(reason)
            self._on_lost(reason)

    async def aclose(self) -> None:
        """Close the connection, with what is on it."""
        if not self.lost.done():  # not a loss: `on_lost` is not called
            self.lost.set_result("closed")
        self.answers = False
        if self._connection is not None:
            with contextlib.suppress(*LOST):
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await self._connection.close()

    async def _open_channel(self, *, publisher_confirms: bool) -> AbstractChannel:
        assert self._connection is not None
        try:
            return await self._connection.channel(
                publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
            )
        except RuntimeError as error:  # what aio_pika and aiormq raise if the connection has just been closed
            raise LinkLost(f"no channel: {error}") from error

    async def _open_publisher(self) -> None:
        try:
            with as_lost():
                channel = await self._open_channel(publisher_confirms=True)
                self._exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        except AMQPChannelError:
            raise  # RabbitMQ refused this; the connection is still up
        except LOST as error:
            self.lose(f"the connection broke: {error!r}")
            raise
        self._publisher = channel

    async def _watch(self) -> None:
        channel = await self._open_channel(publisher_confirms=True)
        channel.close_callbacks.add(lambda _, error: self.lose(f"RabbitMQ closed the watch channel: {error!r}"))
        await on_cancel(channel, lambda: self.lose("RabbitMQ cancelled the watch consumer"))
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        self._watched = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        await queue.bind(self._watched, routing_key=queue.name)
        await queue.consume(self._arrive, no_ack=True)
        self.watch_queue = queue.name

    async def _arrive(self, message: AbstractIncomingMessage) -> None:
        """Handle a message in the watch queue: a probe, or one that a reader's queue dropped."""
        for death in dropped_by(message):
            self._on_drop(*death)

    async def _probe(self) -> None:
        try:
            await self._probe_once()
        except TimeoutError:
            self.answers = False
        except LOST as error:
            self.lose(f"the probe failed: {error!r}")

    async def _probe_once(self) -> None:
        assert self._watched is not None
        message = aio_pika.Message(b"", type=PROBE_TYPE)
        try:
            async with asyncio.timeout(PROBE_PATIENCE):
                await self.ready()
                with as_lost():
                    await self._watched.publish(message, routing_key=self.watch_queue, mandatory=True)
        except PublishError as error:
            raise LinkLost(f"the bindings of the exchange {EXCHANGE!r} were deleted") from error
        except DeliveryError:
            self.answers = False  # it did not accept this message
        else:
            self.answers = not self.lost.done()


@contextlib.contextmanager
def as_lost() -> Iterator[None]:
    """Raise LinkLost for the two errors by which aiormq ends requests under way without naming a reason.

    One is a bare Exception, when a channel or a connection is closed. The other is a CancelledError in a task that
    nobody has cancelled, when a connection has been silent for too long.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    try:
        yield
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked:
            raise
        raise LinkLost("the connection was abandoned as silent") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise LinkLost("the connection or its channel was closed") from error


async def on_cancel(channel: AbstractChannel, ended: Callable[[], None]) -> None:
    """Call `ended` when RabbitMQ ends a consumer of this channel: its queue was deleted, or has lost its leader.

    aio_pika does not report this for channels that do not restore themselves; aiormq, beneath it, does.
    """
    (await beneath(channel)).on_consumer_cancel_callbacks.add(lambda _: ended())


async def beneath(channel: AbstractChannel) -> aiormq.abc.AbstractChannel:
    """Return aiormq's channel beneath one of aio_pika: it spares a task for each message."""
    return await channel.get_underlay_channel()


def dropped_by(message: AbstractIncomingMessage) -> list[tuple[str, str]]:
    """Return the queues that dropped this message, and why, from RabbitMQ's header `x-death`."""
    deaths = message.headers.get("x-death")
    noted = [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []
    return [(text(death.get("queue")), text(death.get("reason"))) for death in noted]


def text(value: object) -> str:
    """Return an AMQP string as text; it may come as octets."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


async def declare_reader_queue(channel: AbstractChannel, watch_queue: str, limit: int, octets: int) -> AbstractQueue:
    """Declare a queue that is deleted with its reader, and whose dropped messages go to the watch queue."""
    return await channel.declare_queue(
        exclusive=True,
        auto_delete=True,
        arguments={
            "x-max-length": limit,
            "x-max-length-bytes": octets,
            "x-overflow": "drop-head",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": watch_queue,
        },
    )


def routing_key(topic: str) -> str:
    """Return a topic's routing key: the topic, or `=` and a digest if it is too long for one."""
    octets = topic.encode()
    return topic if len(octets) <= MAX_TOPIC else "=" + hashlib.sha256(octets).hexdigest()
