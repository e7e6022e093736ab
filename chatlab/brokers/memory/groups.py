"""Consumer groups inside one process: each record goes to one member, and to another if that one leaves it undone.

Members take waiting records when they ask, so fast members do more. What a member did not acknowledge goes back to the
front when it leaves. No member dies without leaving here, so nothing is taken over from a live member, and nothing is
set aside. The number of waiting records is limited: the broker refuses a record for a group that is full.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from chatlab.brokers.port import Record


class MemoryGroup:
    """The work waiting for all members: at most `max_waiting` records, and about `max_octets` octets.

    What members put back does not count towards these limits.
    """

    def __init__(self, max_waiting: int, max_octets: int) -> None:
        self.members = 0
        self.waiting: deque[Record] = deque()
        self.octets = 0  # of the waiting records
        self.changed = asyncio.Event()
        self.closed = False
        self._max_waiting = max_waiting
        self._max_octets = max_octets

    @property
    def full(self) -> bool:
        """Return whether the group accepts no more records."""
        return len(self.waiting) >= self._max_waiting or self.octets >= self._max_octets

    def put(self, *records: Record) -> None:
        """Add work."""
        self.waiting.extend(records)
        self.octets += sum(len(record.body) for record in records)
        self.changed.set()

    def put_back(self, records: Sequence[Record]) -> None:
        """Add work that a member had taken; it comes first."""
        self.waiting.extendleft(reversed(records))
        self.octets += sum(len(record.body) for record in records)
        self.changed.set()

    def take(self, limit: int) -> list[Record]:
        """Take at most `limit` records from the front."""
        taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        self.octets -= sum(len(record.body) for record in taken)
        return taken

    def close(self) -> None:
        """Close every member: the broker is closed."""
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
        """Wait for work, then take what has arrived; empty once the member or its broker is closed."""
        waiting = self._group.waiting
        while not waiting and not self._is_closed:
            self._group.changed.clear()
            await self._group.changed.wait()
        if self._is_closed:
            return []
        taken = self._group.take(limit)
        self._taken.update((record.id, record) for record in taken)
        return taken

    async def ack(self, record: Record) -> None:
        """Acknowledge a record."""
        self._taken.pop(record.id, None)

    async def aclose(self) -> None:
        """Leave; unacknowledged records go to the other members."""
        self._group.members -= not self._closed
        self._closed = True
        self._group.put_back(list(self._taken.values()))
        self._taken.clear()

    @property
    def _is_closed(self) -> bool:
        return self._closed or self._group.closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        batch = await self.batch(1)
        if not batch:
            raise StopAsyncIteration
        return batch[0]
