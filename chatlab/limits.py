"""How fast one client may send: a bucket of tokens, and an end to patience.

A message beyond the rate is refused with a message on `/user/queue/errors`, and counts all the same: who goes on stays
refused. After `patience` refusals without a pause it is an ERROR, and the connection is closed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` messages on average, `burst` at once."""

    per_second: float
    burst: int = 20
    patience: int = 100


class Allowance:
    """What one client may still send; below zero for a flooder."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take a token for one message; False if there was none."""
        now = time.monotonic()
        self._tokens = min(self._rate.burst, self._tokens + (now - self._at) * self._rate.per_second) - 1
        self._at = now
        return self._tokens >= 0

    @property
    def exhausted(self) -> bool:
        """Whether so much was refused that patience has run out."""
        return self._tokens < -self._rate.patience
