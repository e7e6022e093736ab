"""The hub's reader of the broker: every instance reads every record of the topics that its clients subscribe to.

    follow("chat-stream")     the first caller opens the subscription, the last to leave closes it
    followed.ready            set while it is open: everything published from now on will arrive

There is one task per topic; whether that means one connection per topic or one blocking read for all is up to the
engine. After an outage, either the engine resumes its subscriptions, or the relay does: from the last record it
received if the engine keeps history, else from now on. Where records are gone, it continues after them, and the
subscribers are notified that there may be a gap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from chatlab.brokers.port import Broker, Forwards, KeepsHistory, Reader, Record
from chatlab.errors import BrokerClosed, BrokerError, SubscriptionLost
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat")

BACKOFF = Backoff(first=0.1, longest=5.0)


class FollowedTopic:
    """A topic that is read for as long as somebody follows it."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ready = asyncio.Event()
        self.wanted = 0
        self.opened = False  # it has been read before, so a new subscription means a loss
        self.newest: str | None = None  # the id of the last record delivered
        self.task: asyncio.Task[None] | None = None


class Relay:
    """Read topics from a broker and pass their records on in batches, in order, each once.

    `deliver(topic, deliveries)` must not wait. `lost(topic)` is called when records may have been missed, and
    `restarted(topic)` before it if the ids to come may be smaller than earlier ones.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[str, Sequence[Record]], None],
        lost: Callable[[str], None],
        *,
        restarted: Callable[[str], None] | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        self._broker = broker
        self._deliver = deliver
        self._lost = lost
        self._restarted = restarted
        self._followed: dict[str, FollowedTopic] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._tasks = tasks if tasks is not None else Tasks(logger)

    def follow(self, topic: str) -> FollowedTopic:
        """Follow a topic; once `ready` is set, nothing published afterwards is missed."""
        followed = self._followed.get(topic)
        if followed is None:
            followed = self._followed[topic] = FollowedTopic(topic)
            followed.task = self._tasks.start(self._pump(followed), name=f"relay of {topic}")
        followed.wanted += 1
        return followed

    def leave(self, topic: str) -> None:
        """Stop following a topic; with its last follower gone, it is no longer read."""
        followed = self._followed[topic]
        followed.wanted -= 1
        if not followed.wanted:
            del self._followed[topic]
            self._stop(followed)

    def unready(self) -> list[str]:
        """Return the followed topics that are not being read."""
        return [topic for topic, followed in self._followed.items() if not followed.ready.is_set()]

    def reads(self, topic: str) -> bool:
        """Return whether a topic is followed."""
        return topic in self._followed

    def topics(self) -> list[str]:
        """Return the followed topics."""
        return list(self._followed)

    async def aclose(self) -> None:
        """Stop reading all topics."""
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        await asyncio.gather(*(cancel(task) for task in tasks), *(cancel(task) for task in self._ending))

    def _stop(self, followed: FollowedTopic) -> None:
        if (task := followed.task) is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _pump(self, followed: FollowedTopic) -> None:
        def log_retry(error: Exception, seconds: float) -> None:
            logger.warning("topic %r cannot be read, next attempt in %.1f s: %s", followed.topic, seconds, error)

        retry = Retry(on=BrokerError, backoff=BACKOFF, on_failure=log_retry)
        try:
            async for attempt in retry:
                with attempt:
                    await self._follow(followed, retry)
        except BrokerClosed as error:
            logger.info("topic %r is no longer read: %s", followed.topic, error)

    async def _follow(self, followed: FollowedTopic, retry: Retry) -> None:
        """Read a topic until that fails; record where to continue."""
        try:
            subscription = await self._subscribe(followed)
            followed.opened = True
            followed.ready.set()
            await self._read(followed, subscription, retry)
        except SubscriptionLost as error:
            if error.resume is not None:  # records are gone: continue after them
                followed.newest = error.resume
                if error.restarted and self._restarted is not None:
                    self._restarted(followed.topic)
                self._lost(followed.topic)
            raise
        raise SubscriptionLost("the subscription was closed")

    async def _subscribe(self, followed: FollowedTopic) -> Reader:
        if followed.newest is not None and isinstance(self._broker, KeepsHistory):
            return await self._broker.subscribe(followed.topic, after=followed.newest)
        subscription = await self._broker.subscribe(followed.topic)
        if followed.opened:  # records published in between are lost, even if none was received before
            self._lost(followed.topic)
        return subscription

    async def _read(self, followed: FollowedTopic, subscription: Reader, retry: Retry) -> None:
        def deliver(batch: Sequence[Record]) -> None:
            retry.reset()
            if followed.wanted:  # else this task is about to be cancelled
                followed.newest = batch[-1].id
                self._deliver(followed.topic, batch)

        try:
            if isinstance(subscription, Forwards):
                await subscription.forward(deliver)
            while batch := await subscription.batch():
                deliver(batch)
        finally:
            followed.ready.clear()
            await subscription.aclose()
