"""A limit on the octets a server holds for all its clients: incomplete messages, and output that is not being read.

A single message may be large, so a few hundred clients that each send all but its last octet could exhaust the memory.
The octets of all connections are added up. When the sum exceeds `limit`, the connection that holds the most is sent the
reason and dropped. A client that completes its messages is rarely that one.

Left out: what the fan-out buffers for slow readers, which has a limit per reader (fanout.py).
"""

from __future__ import annotations

import logging
from typing import Protocol

from chatlab.logs.throttled import Log, ThrottledLog

__all__ = ["LIMIT", "HeldOctets", "Holder"]

LIMIT = 64 * 1024 * 1024  # octets: four messages of the largest size at once


class Holder(Protocol):
    """A connection that holds octets."""

    def drop(self, reason: str) -> None:
        """Discard everything held, and close."""


class HeldOctets:
    """The octets that one server's connections hold: `total`, which may not exceed `limit`."""

    def __init__(self, log: Log, limit: int = LIMIT) -> None:
        self.total = 0
        self.limit = limit
        self.dropped = 0  # connections dropped to get below the limit
        self._log = ThrottledLog(log)
        self._sizes: dict[Holder, int] = {}

    def update(self, holder: Holder, size: int) -> None:
        """Set the octets that `holder` holds to `size`. While the sum exceeds the limit, drop the largest holder."""
        self.total += size - self._sizes.pop(holder, 0)
        if size:
            self._sizes[holder] = size
        while self.total > self.limit:
            self._drop(max(self._sizes, key=self._sizes.__getitem__))

    def _drop(self, holder: Holder) -> None:
        size = self._sizes.pop(holder)
        self.total -= size
        self.dropped += 1
        extra = {"peer": str(holder), "octets": size}
        self._log.log(logging.WARNING, "dropped: all clients together hold too much", extra=extra)
        limit = f"this server holds at most {self.limit >> 20} MiB for all clients"
        holder.drop(f"unfinished: {limit}; send whole messages, and read yours")
