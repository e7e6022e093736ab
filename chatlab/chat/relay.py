"""The hub's pump from the broker: every instance reads every record of the topics somebody here subscribes to.

    follow("chat-stream")     the first to ask opens the subscription, the last to leave closes it
    followed.ready            set while it is open: what is published from now on will arrive

One task per topic; whether that is one connection per topic or one blocking read for all is the engine's affair.
When an engine goes away, either it takes up its subscriptions again by itself, or the relay does: from the last
record it had, if the engine keeps history, else from now on, and then the subscribers are told that there may be a
gap.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from chatlab.brokers.port import Broker, Delivery, Forwards, KeepsHistory, Subscription
from chatlab.errors import BrokerError

logger = logging.getLogger("chatlab.chat")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0


def backoff(attempt: int) -> float:
    """Seconds to wait before another attempt (0 is the first): twice as long each time, and never all at one moment."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)


class Followed:
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

    `deliver(topic, deliveries)` must not wait; `lost(topic)` is called when records may have been missed.
    """

    def __init__(
        self, broker: Broker, deliver: Callable[[str, Sequence[Delivery]], None], lost: Callable[[str], None]
    ) -> None:
        self._broker = broker
        self._deliver = deliver
        self._lost = lost
        self._followed: dict[str, Followed] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def follow(self, topic: str) -> Followed:
        """Want a topic; wait for `ready` to be sure that nothing published from then on is missed."""
        followed = self._followed.get(topic)
        if followed is None:
            followed = self._followed[topic] = Followed(topic)
            followed.task = asyncio.create_task(self._pump(followed), name=f"relay of {topic}")
            followed.task.add_done_callback(self._ended)
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

    def topics(self) -> list[str]:
        """The topics being read."""
        return list(self._followed)

    async def aclose(self) -> None:
        """Stop reading everything."""
        for followed in self._followed.values():
            self._stop(followed)
        self._followed.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _stop(self, followed: Followed) -> None:
        if followed.task is not None:
            self._ending.add(followed.task)
            followed.task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s ended: its topic is no longer read", task.get_name(), exc_info=error)

    async def _pump(self, followed: Followed) -> None:
        attempt = 0
        while True:
            try:
                subscription = await self._subscribe(followed)
                attempt = 0
                followed.opened = True
                followed.ready.set()
                await self._read(followed, subscription)
                reason: object = "its subscription was closed"
            except BrokerError as error:
                reason = error
            wait = backoff(attempt)
            attempt += 1
            logger.warning("topic %r is not being read, next try in %.1f s: %s", followed.topic, wait, reason)
            await asyncio.sleep(wait)

    async def _subscribe(self, followed: Followed) -> Subscription:
        if followed.newest is not None and isinstance(self._broker, KeepsHistory):
            return await self._broker.subscribe(followed.topic, after=followed.newest)
        subscription = await self._broker.subscribe(followed.topic)
        if followed.opened:  # what was published meanwhile has passed by, even if nothing ever came before it
            self._lost(followed.topic)
        return subscription

    async def _read(self, followed: Followed, subscription: Subscription) -> None:
        def deliver(batch: Sequence[Delivery]) -> None:
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
