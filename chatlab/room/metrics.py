"""A room's metrics: its members, recent departures and counters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemberMetrics:
    """A snapshot of one member."""

    name: str
    address: str
    sent: int  # texts accepted from this member
    buffered: int  # bytes waiting to be sent to it
    latency: float  # seconds, measured by the last keep-alive ping; 0 before the first


@dataclass(frozen=True)
class Departure:
    """A member that left, and why."""

    name: str
    code: int
    reason: str


@dataclass(frozen=True)
class RoomMetrics:
    """A snapshot of a room; counters start when it opens."""

    members: tuple[MemberMetrics, ...]
    departures: tuple[Departure, ...]
    messages: int
    deliveries: int
    messages_per_second: float = 0.0
    writes: int = 0
    slow: int = 0
    aborted: int = 0

    @property
    def buffered(self) -> int:
        """The bytes waiting to be sent, for all members together."""
        return sum(member.buffered for member in self.members)
