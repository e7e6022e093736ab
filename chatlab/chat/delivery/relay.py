"""The hub's pump from the broker: every instance reads every record of the topics somebody here subscribes to.

    follow("chat-stream")     the first to ask opens the subscription, the last to leave closes it
    followed.ready            set while it is open: what is published from now on will arrive

One task per topic; whether that is one connection per topic or one blocking read for all is up to the engine. When an
engine goes away, either it takes up its subscriptions again by itself, or the relay does: from the last record it had,
if the engine keeps history, else from now on. Where records are gone, it goes on after them, and the subscribers are
told that there may be a gap.
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
    """A topic that is being read, for as long as somebody wants it."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ready = asyncio.Event()
        self.wanted = 0
        self.opened = False  # it has been read before: a new subscription is one after a loss
        self.newest: str | None = None  # the id of the last record delivered
        self.task: asyncio.Task[None] | None = None


class Relay:
    """Reads topics from a broker and hands their records on in batches, in order, each once.

    `deliver(topic, deliveries)` must not wait. `lost(topic)` is called when records may have been missed, and
    `restarted(topic)` before it if the ids to come may be smaller than those before.
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
        """Want a topic; wait for `ready` to be sure that nothing published from then on is missed."""
        followed = self._followed.get(topic)
        if followed is None:
            followed = self._followed[topic] = FollowedTopic(topic)
            followed.task = self._tasks.start(self._pump(followed), name=f"relay of {topic}")
        followed.wanted += 1
        return followed

    def leave(self, topic: str) -> None:
        """Want a topic no longer; when nobody does, it is not read any more."""
        followed = self._followed[topic]
        followed.wanted -= 1
        if not followed.wanted:
            del self._followed[topic]
            self._stop(followed)

    def unready(self) -> list[str]:
        """The topics that somebody wants and that are not being read."""
        return [topic for topic, followed in self._followed.items() if not followed.ready.is_set()]

    def reads(self, topic: str) -> bool:
        """Whether somebody wants a topic."""
        return topic in self._followed

    def topics(self) -> list[str]:
        """The topics being read."""
        return list(self._followed)

    async def aclose(self) -> None:
        """Stop reading everything."""
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        await asyncio.gather(*(cancel(task) for task in tasks), *(cancel(task) for task in self._ending))

    def _stop(self, followed: FollowedTopic) -> None:
        if (task := followed.task) is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _pump(self, followed: FollowedTopic) -> None:
        def waits(error: Exception, seconds: float) -> None:
            logger.warning("topic %r is not being read, next try in %.1f s: %s", followed.topic, seconds, error)

        retry = Retry(on=BrokerError, backoff=BACKOFF, on_failure=waits)
        try:
            async for attempt in retry:
                with attempt:
                    await self._follow(followed, retry)
        except BrokerClosed as error:
            logger.info("topic %r is no longer read: %s", followed.topic, error)

    async def _follow(self, followed: FollowedTopic, retry: Retry) -> None:
        """Read a topic until that fails; note where to go on."""
        try:
            subscription = await self._subscribe(followed)
            followed.opened = True
            followed.ready.set()
            await self._read(followed, subscription, retry)
        except SubscriptionLost as error:
            if error.resume is not None:  # records are gone: go on after them
                followed.newest = error.resume
                if error.restarted and self._restarted is not None:
                    self._restarted(followed.topic)
                self._lost(followed.topic)
            raise
        raise SubscriptionLost("its subscription was closed")

    async def _subscribe(self, followed: FollowedTopic) -> Reader:
        if followed.newest is not None and isinstance(self._broker, KeepsHistory):
            return await self._broker.subscribe(followed.topic, after=followed.newest)
        subscription = await self._broker.subscribe(followed.topic)
        if followed.opened:  # what was published meanwhile has passed by, even if nothing ever came before it
            self._lost(followed.topic)
        return subscription

    async def _read(self, followed: FollowedTopic, subscription: Reader, retry: Retry) -> None:
        def deliver(batch: Sequence[Record]) -> None:
            retry.reset()
            if followed.wanted:  # else the task that reads is about to end
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
