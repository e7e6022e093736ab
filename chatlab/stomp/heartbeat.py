"""Heart-beats: the negotiation, and when the next is due. The caller provides the clock; nothing here waits.

    client sends   heart-beat:cx,cy      it can send every cx milliseconds, and wants to receive every cy
    server sends   heart-beat:sx,sy      the same for the server; 0 means "cannot" or "not wanted"

The agreed interval from client to server is the larger of cx and sy, from server to client the larger of sx and cy.
There are no heart-beats in a direction where either number is 0.
"""

from __future__ import annotations

import re
from typing import Final

from chatlab.errors import StompError

_HEART_BEAT: Final = re.compile(r"([0-9]{1,9}),([0-9]{1,9})")

# "Because of timing inaccuracies, the receiver SHOULD be tolerant and take into account an error margin."
TOLERANCE: Final = 0.5  # of the interval
MIN_TOLERANCE: Final = 0.5  # seconds; a busy machine needs that even for a short interval
# The sender's margin: send after this fraction of the interval.
SEND_MARGIN: Final = 0.8


def parse_heart_beat(value: str | None) -> tuple[int, int]:
    """Return the two numbers of a `heart-beat` header, in milliseconds. A missing header means "0,0"."""
    if value is None:
        return 0, 0
    match = _HEART_BEAT.fullmatch(value)
    if match is None:
        raise StompError(f"heart-beat {value!r} is not two numbers of milliseconds, such as 10000,10000")
    return int(match[1]), int(match[2])


def agree(ours: tuple[int, int], theirs: tuple[int, int]) -> tuple[int, int]:
    """Return the agreed intervals for sending and receiving, in milliseconds; 0 means no heart-beats."""
    (can_send, want), (they_can_send, they_want) = ours, theirs
    # "if <cx> is 0 or <sy> is 0 then there will be none; otherwise, there will be heart-beats every MAX(<cx>,<sy>)"
    sending = max(can_send, they_want) if can_send and they_want else 0
    receiving = max(they_can_send, want) if they_can_send and want else 0
    return sending, receiving


class HeartBeat:
    """The heart-beats of one connection in both directions, in seconds of the caller's clock."""

    __slots__ = ("_last_received", "_last_sent", "receiving", "sending")

    def __init__(self, agreed: tuple[int, int], now: float) -> None:
        self.sending, self.receiving = agreed[0] / 1000, agreed[1] / 1000
        self._last_sent = self._last_received = now

    def record_sent(self, now: float) -> None:
        """Record that data was sent at `now`. Any frame counts as a heart-beat."""
        self._last_sent = now

    def record_received(self, now: float) -> None:
        """Record that data was received at `now`."""
        self._last_received = now

    @property
    def max_silence(self) -> float:
        """The silence after which the peer is considered dead, in seconds."""
        return self.receiving + max(self.receiving * TOLERANCE, MIN_TOLERANCE)

    def send_by(self) -> float:
        """Return when something must be sent next (infinity: never)."""
        return self._last_sent + self.sending * SEND_MARGIN if self.sending else float("inf")

    def receive_by(self) -> float:
        """Return when the peer is considered dead unless it sends something before (infinity: never)."""
        return self._last_received + self.max_silence if self.receiving else float("inf")
