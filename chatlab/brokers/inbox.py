"""The near end of a subscription: what has arrived and was not read yet. Every engine's subscriptions build on it.

Left out: where deliveries come from. An inbox is filled and read on one event loop, and read by one task at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from chatlab.brokers.port import Record
from chatlab.errors import SubscriptionLost

MAX_WAITING = 10_000  # deliveries; a reader further behind than that is no reader any more


class Inbox:
    """Deliveries in order, then an end: quiet if we closed it, with an error if the engine went away."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.closed = False
        self._waiting: deque[Record] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, records: Sequence[Record]) -> None:
        """Add what has arrived."""
        self._waiting.extend(records)
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come. What has arrived can be read, then comes the end."""
        self.closed = True
        self._error = self._error or error
        self._changed.set()

    def discard(self) -> None:
        """End, and forget what was not read."""
        self._waiting.clear()
        self.end()

    def take(self, limit: int) -> list[Record]:
        """What is here, at most `limit`. Raises the error the subscription ended with, once all before it is read."""
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._error is not None:
            raise lost_again(self._error) from self._error
        return []

    async def changed(self) -> None:
        """Wait until something arrives or ends. A cancelled wait loses nothing."""
        self._changed.clear()
        if not self._waiting and not self.closed:
            await self._changed.wait()

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for a delivery, then return all that are here; empty once it is closed."""
        while not (here := self.take(limit)) and not self.closed:
            await self.changed()
        return here

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        batch = await self.batch(1)
        if not batch:
            raise StopAsyncIteration
        return batch[0]


def lost_again(error: Exception) -> SubscriptionLost:
    """Return an error to raise for each read after the end; `error` itself would gather every reader's traceback."""
    if isinstance(error, SubscriptionLost):
        return SubscriptionLost(str(error), resume=error.resume, restarted=error.restarted)
    return SubscriptionLost(*error.args)


class ForwardingInbox(Inbox):
    """An inbox that can hand deliveries on as they arrive: a turn of the loop and a wake-up less for each batch."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self._deliver: Callable[[Sequence[Record]], None] | None = None
        self._fault: Exception | None = None  # what `_deliver` raised

    def put(self, records: Sequence[Record]) -> None:
        """Add what has arrived, or hand it on."""
        if self._deliver is None:
            super().put(records)
        elif records and not self.closed:
            try:
                self._deliver(records)
            except Exception as error:  # the reader's own: it goes to the reader, not to the engine that calls us
                self._fault = error
                self.end()

    async def forward(self, deliver: Callable[[Sequence[Record]], None]) -> None:
        """Call `deliver` with what is here and with what arrives, until closed. Raises SubscriptionLost.

        What `deliver` raises is raised here, and ends the subscription.
        """
        if here := self.take(len(self)):
            deliver(here)
        self._deliver = deliver
        try:
            await self.batch()  # nothing more comes to it: it returns when the subscription has ended
        finally:
            self._deliver = None
        if self._fault is not None:
            raise self._fault
