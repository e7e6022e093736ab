"""Consumer groups inside one process: each record to one member, and again to another if that one leaves it undone.

A member takes from what waits when it asks, so the quick ones do more. What it did not acknowledge goes back to the
front when it leaves. Nobody dies here without leaving, so nothing is ever taken over from the living, and nothing is
set aside.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from chatlab.brokers.port import Delivery


class MemoryGroup:
    """What is still to be done, for all members."""

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self.changed = asyncio.Event()

    def put(self, *deliveries: Delivery) -> None:
        """Add work."""
        self.waiting.extend(deliveries)
        self.changed.set()

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Add work that somebody had begun: it comes first."""
        self.waiting.extendleft(reversed(deliveries))
        self.changed.set()


class MemoryMember:
    """One member of a group."""

    def __init__(self, group: MemoryGroup) -> None:
        self._group = group
        self._taken: dict[str, Delivery] = {}
        self._closed = False

    async def batch(self, limit: int = 512) -> Sequence[Delivery]:
        """Wait for work, then take what is here; empty once it is closed."""
        waiting = self._group.waiting
        while not waiting and not self._closed:
            self._group.changed.clear()
            await self._group.changed.wait()
        if self._closed:
            return []
        taken = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        self._taken.update((delivery.id, delivery) for delivery in taken)
        return taken

    async def ack(self, delivery: Delivery) -> None:
        """The work for this record is done."""
        self._taken.pop(delivery.id, None)

    async def aclose(self) -> None:
        """Leave; what was taken and not acknowledged is the others'."""
        self._closed = True
        self._group.put_back(list(self._taken.values()))
        self._taken.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        batch = await self.batch(1)
        if not batch:
            raise StopAsyncIteration
        return batch[0]
