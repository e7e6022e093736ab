"""How many octets a server holds for all its clients: messages that have not ended, and answers that nobody reads.

One message may be large, so that a few hundred clients who each send all but its last octet could take all the memory.
What each connection holds is added up, and beyond `limit` the one that holds most gets the reason and is dropped. A
client that sends what it has begun is rarely that one.

Left out: what the fan-out keeps for slow readers, which has a limit for each (fanout.py).
"""

from __future__ import annotations

import logging
from typing import Protocol

from chatlab.logs.throttled import Log, ThrottledLog

__all__ = ["LIMIT", "Held", "Holder"]

LIMIT = 64 * 1024 * 1024  # octets; four of the largest messages at once


class Holder(Protocol):
    """A connection, as far as this file is concerned."""

    def give_up(self, reason: str) -> None:
        """Let go of all that is held, and close."""


class Held:
    """What the connections of one server hold: `total` octets, of which there may be `limit`."""

    def __init__(self, log: Log, limit: int = LIMIT) -> None:
        self.total = 0
        self.limit = limit
        self.given_up = 0  # connections that were dropped for it
        self._log = ThrottledLog(log)
        self._sizes: dict[Holder, int] = {}

    def note(self, holder: Holder, size: int) -> None:
        """Note that `holder` holds `size` octets now; drop those that hold most, if that is too much in all."""
        self.total += size - self._sizes.pop(holder, 0)
        if size:
            self._sizes[holder] = size
        while self.total > self.limit:
            self._drop(max(self._sizes, key=self._sizes.__getitem__))

    def _drop(self, holder: Holder) -> None:
        size = self._sizes.pop(holder)
        self.total -= size
        self.given_up += 1
        self._log.log(logging.WARNING, "dropped: too much is held in all", extra={"peer": str(holder), "octets": size})
        holder.give_up(f"unfinished: this server holds {self.limit >> 20} MiB in all; send whole messages, and read")
