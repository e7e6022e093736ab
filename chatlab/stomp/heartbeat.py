"""Heart-beats: what two peers agree on, and when each is due. The clock is the caller's; nothing here waits.

    client says   heart-beat:cx,cy      it can send every cx milliseconds, and would like something every cy
    server says   heart-beat:sx,sy      the same for the server; 0 is "I cannot" or "I do not want to"

From client to server the agreed interval is the larger of cx and sy, from server to client that of sx and cy, and there
is none where either figure is 0.
"""

from __future__ import annotations

import re
from typing import Final

from chatlab.errors import StompError

_HEART_BEAT: Final = re.compile(r"([0-9]{1,9}),([0-9]{1,9})")

# "Because of timing inaccuracies, the receiver SHOULD be tolerant and take into account an error margin."
TOLERANCE: Final = 0.5  # of the interval
LEAST_TOLERANCE: Final = 0.5  # seconds: a busy machine needs them, however short the interval
# The sender's own margin: something is on its way before the interval is over.
HASTE: Final = 0.8


def parse_heart_beat(value: str | None) -> tuple[int, int]:
    """Return the two figures of a `heart-beat` header, in milliseconds; no header means "0,0"."""
    if value is None:
        return 0, 0
    match = _HEART_BEAT.fullmatch(value)
    if match is None:
        raise StompError(f"heart-beat {value!r} is not two numbers of milliseconds, such as 10000,10000")
    return int(match[1]), int(match[2])


def agree(ours: tuple[int, int], theirs: tuple[int, int]) -> tuple[int, int]:
    """Return how often we send and how often we are sent to, in milliseconds; 0 is never."""
    (can_send, want), (they_can_send, they_want) = ours, theirs
    # "if <cx> is 0 or <sy> is 0 then there will be none; otherwise, there will be heart-beats every MAX(<cx>,<sy>)"
    sending = max(can_send, they_want) if can_send and they_want else 0
    receiving = max(they_can_send, want) if they_can_send and want else 0
    return sending, receiving


class HeartBeat:
    """Both directions of one connection, in seconds of the caller's clock."""

    __slots__ = ("_last_received", "_last_sent", "receiving", "sending")

    def __init__(self, agreed: tuple[int, int], now: float) -> None:
        self.sending, self.receiving = agreed[0] / 1000, agreed[1] / 1000
        self._last_sent = self._last_received = now

    def sent(self, now: float) -> None:
        """Something left at `now`: any frame is as good as a heart-beat."""
        self._last_sent = now

    def received(self, now: float) -> None:
        """Something came in at `now`."""
        self._last_received = now

    @property
    def receive_after(self) -> float:
        """Return how long a silence holds the peer for dead, in seconds."""
        return self.receiving + max(self.receiving * TOLERANCE, LEAST_TOLERANCE)

    def send_by(self) -> float:
        """Return when something has to be sent next (infinity: never)."""
        return self._last_sent + self.sending * HASTE if self.sending else float("inf")

    def receive_by(self) -> float:
        """Return from when on the peer is to be held for dead, unless something comes before (infinity: never)."""
        return self._last_received + self.receive_after if self.receiving else float("inf")
