"""Redis Pub/Sub: the shortest way from one process to many. A reader that is not connected misses the message.

A publish returns when the server has sent the message to its subscribers, even if there are none. When the connection
breaks, every reader ends with `SubscriptionLost`, because there is no way to know what was missed. Left out: patterns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from chatlab.brokers.inbox import MAX_WAITING, Inbox
from chatlab.brokers.port import Record
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.connections.server import examine, probe, pubsub
from chatlab.brokers.redis.publisher import Publisher
from chatlab.brokers.redis.queries import BACKOFF
from chatlab.errors import BrokerClosed, BrokerUnavailable, LinkLost, SubscriptionLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

SILENCE = 1.0  # seconds of silence before a PING
TIMEOUT = 3.0  # seconds a server may take to answer
NOTHING_IS_KEPT = (
    "Pub/Sub keeps no messages: a crash of the broker loses those in transit; redis:// (Streams) keeps them"
)


@dataclass(slots=True, eq=False)
class Channel:
    """A subscribed topic: its readers, and whether the server has confirmed the SUBSCRIBE."""

    confirmed: asyncio.Future[None]
    asked: int = 0  # SUBSCRIBEs not yet answered
    readers: set[PubSubReader] = field(default_factory=set)


class RedisPubSubBroker:
    """One connection publishes, another listens.

    `patience`: seconds a publish waits for a server that is away. `topics`: some that will be used; the rights
    to their channels are checked at the start.
    """

    def __init__(
        self, url: str, *, patience: float = 10, max_waiting: int = MAX_WAITING, topics: Sequence[str] = ()
    ) -> None:
        self.url = url
        self._expected_topics = topics
        self._probe = probe(url, pubsub(topics))
        self._max_waiting = max_waiting
        self._patience = patience
        self._publisher = Publisher(Link(url, TIMEOUT), nothing_to_prepare, patience)
        self._link = Link(url, TIMEOUT)
        self._channels: dict[str, Channel] = {}
        self._opened = asyncio.Event()
        self._listening = False  # started, and not closed
        self._tasks = Tasks(log)
        self._retry = Retry(on=LinkLost, backoff=BACKOFF, on_failure=self._waits)

    @property
    def connected(self) -> bool:
        """Return whether both connections are up."""
        return self._publisher.connected and self._link.is_open and not self._tasks.fault

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable, or SetupError if the server lacks what is needed."""
        try:
            await examine(self.url, TIMEOUT, pubsub(self._expected_topics))
            await self._publisher.start()
            await self._link.open()
        except BaseException:
            await self.aclose()
            raise
        self._opened.set()
        self._listening = True
        self._tasks.start(self._run(), name="redis pub/sub listener", on_failure=self._fail)

    async def publish(self, topic: str, body: bytes) -> str:
        """Send a message to the current subscribers; there is no id. After BrokerUnavailable it may have been sent."""
        await self._publisher.submit((b"PUBLISH", topic, body), len(body))
        return ""

    async def subscribe(self, topic: str) -> PubSubReader:
        """Subscribe; return once the server has confirmed it. Raises BrokerUnavailable."""
        reader = PubSubReader(self, topic)
        try:
            async with asyncio.timeout(self._patience):
                await self._add(reader)
        except TimeoutError:
            raise BrokerUnavailable(f"the broker did not confirm SUBSCRIBE within {self._patience:g} s") from None
        return reader

    async def crash_risk(self) -> str:
        """Return what a crash may cost: nothing is kept, whatever the server's settings."""
        return NOTHING_IS_KEPT

    async def why_refused(self) -> str:
        """Return "" if the server accepts new connections and messages now, else why not."""
        return await self._probe.why_refused()

    async def aclose(self) -> None:
        """Close every reader and connection."""
        self._listening = False
        self._opened.set()  # wake callers that wait to subscribe
        await self._tasks.aclose()
        for channel in self._channels.values():
            if not channel.confirmed.done():
                channel.confirmed.set_exception(BrokerClosed("this broker is closed"))
                channel.confirmed.exception()  # mark it retrieved, even if nobody waits for it
            for reader in channel.readers:
                reader.discard()
        self._channels.clear()
        await self._link.close()
        await self._publisher.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def remove(self, reader: PubSubReader) -> None:
        """Remove a reader; the last one of its topic sends UNSUBSCRIBE."""
        channel = self._channels.get(reader.topic)
        if channel is None or reader not in channel.readers:
            return
        channel.readers.remove(reader)
        if not channel.readers and self._link.is_open:
            with contextlib.suppress(LinkLost):  # a lost connection has no subscriptions
                await self._link.send(b"UNSUBSCRIBE", reader.topic)

    async def _add(self, reader: PubSubReader) -> None:
        if self._listening:
            await self._opened.wait()
        if not self._listening:
            raise BrokerClosed("this broker is closed")
        if self._tasks.fault:
            raise BrokerUnavailable(self._tasks.fault)
        channel = self._channels.setdefault(reader.topic, Channel(new_future()))
        first = not channel.readers
        channel.readers.add(reader)
        try:
            if first:
                channel.asked += 1
                channel.confirmed = new_future()
                await self._link.send(b"SUBSCRIBE", reader.topic)
            await asyncio.shield(channel.confirmed)
        except BaseException:
            await reader.aclose()
            raise

    async def _run(self) -> None:
        async for attempt in self._retry:
            with attempt:
                if not self._link.is_open:
                    await self._link.open()
                    self._opened.set()
                    log.info("listening resumed")
                await self._listen()

    def _waits(self, error: Exception, seconds: float) -> None:
        self._opened.clear()
        self._lose(error)
        log.warning("listening paused: %s", error)

    def _fail(self, error: Exception) -> None:
        self._link.drop()
        self._lose(error)

    async def _listen(self) -> None:
        """Hand out pushed messages; send a PING to a silent server."""
        silent = False
        while True:
            push = await self._link.receive(TIMEOUT if silent else SILENCE)
            if push is not None:
                silent = False
                self._retry.reset()
                self._take(push)
            elif silent:
                await self._link.close()
                raise LinkLost(f"the broker was silent for {SILENCE + TIMEOUT:g} s")
            else:
                silent = True
                await self._link.send(b"PING")

    def _take(self, push: list[bytes] | bytes) -> None:
        if not isinstance(push, list) or (channel := self._channels.get(str(push[1], "utf-8"))) is None:
            return  # the reply to a PING, or a message for readers that have left
        if push[0] == b"message" and not channel.asked:  # else it was sent for readers that have left
            self._hand_out(channel, Record(str(push[1], "utf-8"), "", push[2]))
        elif push[0] == b"subscribe":
            channel.asked -= 1
            if not channel.asked and not channel.confirmed.done():
                channel.confirmed.set_result(None)
        elif push[0] == b"unsubscribe" and not channel.asked and not channel.readers:
            del self._channels[str(push[1], "utf-8")]

    def _hand_out(self, channel: Channel, record: Record) -> None:
        for reader in list(channel.readers):
            if len(reader) >= self._max_waiting:
                channel.readers.discard(reader)
                reader.end(SubscriptionLost(f"the reader of {record.topic} fell {self._max_waiting} messages behind"))
            else:
                reader.put([record])

    def _lose(self, error: Exception) -> None:
        """End every reader: what is published from now on is missed."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            if not channel.confirmed.done():
                channel.confirmed.set_exception(BrokerUnavailable(str(error)))
                channel.confirmed.exception()  # mark it retrieved, even if its waiter has left
            for reader in channel.readers:
                reader.end(SubscriptionLost(f"messages may have been missed: {error}"))


class PubSubReader(Inbox):
    """A reader of a channel. It ends with an error if it falls far behind or the connection breaks."""

    def __init__(self, broker: RedisPubSubBroker, topic: str) -> None:
        super().__init__(topic)
        self._broker = broker

    async def aclose(self) -> None:
        """Stop reading."""
        self.discard()
        await self._broker.remove(self)


async def nothing_to_prepare(link: Link) -> Command | None:
    """Do nothing: a connection that publishes needs no preparation."""
    return None


def new_future() -> asyncio.Future[None]:
    """Return a future on the running loop."""
    return asyncio.get_running_loop().create_future()
