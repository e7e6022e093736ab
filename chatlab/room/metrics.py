"""What can be measured of a room: its members, who left and why, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemberMetrics:
    """One member at one moment."""

    name: str
    address: str
    sent: int  # texts the room took from it
    buffered: int  # bytes that wait for it
    latency: float  # seconds, measured by the last keep-alive ping; 0 before the first


@dataclass(frozen=True)
class Departure:
    """Who left, and why."""

    name: str
    code: int
    reason: str


@dataclass(frozen=True)
class RoomMetrics:
    """A room at one moment; counts are since it opened."""

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
        """Bytes that wait for members, all together."""
        return sum(member.buffered for member in self.members)
