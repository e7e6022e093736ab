"""The rate limit for one client's messages: a token bucket, used by the room and the chat alike.

The bucket holds `burst` tokens and refills at `per_second`. Each message takes one. A message without a token is
refused but still counted, so a client that keeps sending stays refused. After `patience` refusals without a pause
the client is disconnected: in a room with close code 1008, in the chat with an ERROR frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RateLimit", "TokenBucket"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rate at which one client may send: `per_second` messages on average, `burst` at once."""

    per_second: float
    burst: int = 10
    patience: int = 50


class TokenBucket:
    """One client's tokens. The count goes below zero while the client keeps sending too fast."""

    __slots__ = ("_clock", "_tokens", "_updated", "limit")

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._updated = clock()

    def take(self) -> bool:
        """Take a token for one message. Return False if there was none."""
        now = self._clock()
        refilled = self._tokens + (now - self._updated) * self.limit.per_second
        self._tokens = min(self.limit.burst, refilled) - 1
        self._updated = now
        return self._tokens >= 0

    @property
    def exhausted(self) -> bool:
        """Whether the client has exceeded the limit by more than `patience` messages."""
        return self._tokens < -self.limit.patience
