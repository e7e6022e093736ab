"""A figure that was measured several times: its median, and the range that a single run must be expected to lie in.

rate = Repeats((19_800.0, 21_300.0, 20_100.0))
rate.median, rate.low, rate.high
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

__all__ = ["Repeats"]


class Repeats(NamedTuple):
    """The values of one measure, in the order in which they were measured; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.values)

    def __truediv__(self, other: Repeats) -> Repeats:
        """Return the ratios, one for each pair of values that were measured in the same round."""
        return Repeats(tuple(one / each for one, each in zip(self.values, other.values, strict=True)))
