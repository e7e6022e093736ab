"""The client side of a subscription: records that have arrived and are not read yet. Every engine's readers use it.

Left out: where records come from. An inbox is filled and read on one event loop, and read by one task at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from chatlab.brokers.port import Record
from chatlab.errors import SubscriptionLost

MAX_WAITING = 10_000  # records; a reader further behind than that has stopped reading


class Inbox:
    """Records in order, then an end: without an error if we closed it, with one if the engine went away."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.closed = False
        self._waiting: deque[Record] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, records: Sequence[Record]) -> None:
        """Add records that have arrived."""
        self._waiting.extend(records)
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """Close the inbox: what has arrived can still be read; after that, reading ends."""
        self.closed = True
        self._error = self._error or error
        self._changed.set()

    def discard(self) -> None:
        """Close the inbox and drop what was not read."""
        self._waiting.clear()
        self.end()

    def take(self, limit: int) -> list[Record]:
        """Return at most `limit` records that have arrived. If there are none, raise the error of the end, if any."""
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
        """Wait for a record, then return all that have arrived, at most `limit`; empty once closed."""
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
    """Return a new error for each read after the end; raising `error` itself again would pile up tracebacks."""
    if isinstance(error, SubscriptionLost):
        return SubscriptionLost(str(error), resume=error.resume, restarted=error.restarted)
    return SubscriptionLost(*error.args)


class ForwardingInbox(Inbox):
    """An inbox that can forward records as they arrive, which saves a loop turn and a wake-up for each batch."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self._deliver: Callable[[Sequence[Record]], None] | None = None
        self._fault: Exception | None = None  # what `_deliver` raised

    def put(self, records: Sequence[Record]) -> None:
        """Add records that have arrived, or forward them."""
        if self._deliver is None:
            super().put(records)
        elif records and not self.closed:
            try:
                self._deliver(records)
            except Exception as error:  # the reader's fault: raise it there, not in the engine
                self._fault = error
                self.end()

    async def forward(self, deliver: Callable[[Sequence[Record]], None]) -> None:
        """Call `deliver` with what has arrived and with what arrives later, until closed. Raises SubscriptionLost.

        An error raised by `deliver` is raised here and ends the subscription.
        """
        if here := self.take(len(self)):
            deliver(here)
        self._deliver = deliver
        try:
            await self.batch()  # nothing is queued any more: it returns when the subscription ends
        finally:
            self._deliver = None
        if self._fault is not None:
            raise self._fault
