"""Consumer groups inside one process: each record to one member, and again to another if that one leaves it undone.

A member takes from what waits when it asks, so the quick ones do more. What it did not acknowledge goes back to the
front when it leaves. Nobody dies here without leaving, so nothing is ever taken over from the living, and nothing is
set aside. What waits is limited: the broker takes no record for a group that is full, and says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from chatlab.brokers.port import Record


class MemoryGroup:
    """What is still to be done, for all members: at most `max_waiting` records, and about `max_octets` octets.

    What members have put back comes on top of that.
    """

    def __init__(self, max_waiting: int, max_octets: int) -> None:
        self.members = 0
        self.waiting: deque[Record] = deque()
        self.octets = 0  # of what waits
        self.changed = asyncio.Event()
        self.closed = False
        self._max_waiting = max_waiting
        self._max_octets = max_octets

    @property
    def full(self) -> bool:
        """Whether there is no room for one more record."""
        return len(self.waiting) >= self._max_waiting or self.octets >= self._max_octets

    def put(self, *records: Record) -> None:
        """Add work."""
        self.waiting.extend(records)
        self.octets += sum(len(record.body) for record in records)
        self.changed.set()

    def put_back(self, records: Sequence[Record]) -> None:
        """Add work that somebody had begun: it comes first."""
        self.waiting.extendleft(reversed(records))
        self.octets += sum(len(record.body) for record in records)
        self.changed.set()

    def take(self, limit: int) -> list[Record]:
        """Take what comes first."""
        taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        self.octets -= sum(len(record.body) for record in taken)
        return taken

    def close(self) -> None:
        """End every member: the broker is closed."""
        self.closed = True
        self.changed.set()


class MemoryMember:
    """One member of a group."""

    def __init__(self, group: MemoryGroup) -> None:
        self._group = group
        group.members += 1
        self._taken: dict[str, Record] = {}
        self._closed = False

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for work, then take what is here; empty once it or its broker is closed."""
        waiting = self._group.waiting
        while not waiting and not self._over:
            self._group.changed.clear()
            await self._group.changed.wait()
        if self._over:
            return []
        taken = self._group.take(limit)
        self._taken.update((record.id, record) for record in taken)
        return taken

    async def ack(self, record: Record) -> None:
        """The work for this record is done."""
        self._taken.pop(record.id, None)

    async def aclose(self) -> None:
        """Leave; what was taken and not acknowledged is the others'."""
        self._group.members -= not self._closed
        self._closed = True
        self._group.put_back(list(self._taken.values()))
        self._taken.clear()

    @property
    def _over(self) -> bool:
        return self._closed or self._group.closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        batch = await self.batch(1)
        if not batch:
            raise StopAsyncIteration
        return batch[0]
