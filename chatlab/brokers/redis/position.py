"""A reader's position in a Redis stream, and the one rule that says whether the stream still has what comes after it.

A position is an id. An id alone cannot tell "nothing was added after it" from "what was added after it is gone":
XRANGE and XREAD return what is there in both cases. Records disappear when a stream is trimmed (by its writers or by
hand), when they are deleted, or when the server loses its data. A server that comes back without them, or with a slow
clock, assigns ids that a reader has already passed. XINFO STREAM gives enough to tell the cases apart:

    first ≤ position ≤ newest, and its record is still there      nothing is missing
    position < first                                              trimmed, unless the counts say otherwise
    newest < position                                             the stream has started over, or has lost records
    the record at the position is gone, and was not deleted       the stream lost its newest records and has grown again

Left out: asking (redis/queries.py) and what a reader does about a loss (redis/streams.py, redis/follower.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from redis.exceptions import ResponseError

from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING

# Redis 6.2 does not count the records ever added. A reader that starts at an empty stream and finds this many records
# may have been overtaken; with fewer, no stream of ours has been trimmed.
UNCOUNTED = 512


@dataclass(slots=True)
class Position:
    """The id of the last record a reader has, and how many records were ever added up to it (None: unknown)."""

    id: str
    count: int | None = None

    def advance(self, id: str, records: int) -> None:
        """Move past `records` records, the last of which is `id`."""
        self.id = id
        if self.count is not None:
            self.count += records


@dataclass(frozen=True, slots=True)
class StreamState:
    """What XINFO STREAM reports; a stream that does not exist counts as empty and never written."""

    first: str | None = None  # id of the first record kept
    newest: str = BEGINNING  # id last added; its record may be gone
    length: int = 0
    added: int | None = 0  # records ever added; None before Redis 7
    deleted: str | None = None  # the newest id that XDEL removed; None before Redis 7

    @classmethod
    def parse(cls, reply: Any) -> Self:
        """Parse a reply to XINFO STREAM (https://redis.io/commands/xinfo-stream/), as a map or as a flat list."""
        if isinstance(reply, ResponseError):
            if "no such key" in str(reply):
                return cls()
            raise reply
        fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        first = fields.get(b"first-entry")
        deleted = fields.get(b"max-deleted-entry-id")
        return cls(
            str(first[0], "ascii") if first else None,
            str(fields[b"last-generated-id"], "ascii"),
            fields[b"length"],
            fields.get(b"entries-added"),
            str(deleted, "ascii") if deleted is not None else None,
        )

    @property
    def dropped(self) -> int | None:
        """Return how many records were added and are not kept; None if the server does not count them."""
        return None if self.added is None else self.added - self.length

    def count_at(self, id: str) -> int | None:
        """Return how many records were added up to `id`, where that is certain: at the newest, and before the first."""
        if id == self.newest:
            return self.added
        return self.dropped if id == BEGINNING else None


def why_overtaken(position: Position, state: StreamState, *, kept: bool) -> str:
    """Return why records after `position` may be gone, "" if none are.

    `kept`: whether the record at the position is in the stream. Query both after reading, so that records removed
    during the read are noticed too.
    """
    here, newest = parse_id(position.id), parse_id(state.newest)
    if newest < here:
        return f"its reader was at {position.id}, but its newest record is {state.newest}: it has started over"
    if newest == here:
        return ""
    if state.first is None or here < parse_id(state.first):
        return "" if _all_kept(position, state) else f"it was trimmed past its reader at {position.id}"
    if kept or position.id == BEGINNING or (state.deleted is not None and parse_id(state.deleted) >= here):
        return ""
    return f"the stream has lost the record at {position.id}, and perhaps others after it"


def _all_kept(position: Position, state: StreamState) -> bool:
    """Return whether all records after a position are still there, although the one at the position is not."""
    if position.count is None or state.added is None:
        return position.id == BEGINNING and state.length < UNCOUNTED
    return state.added - position.count <= state.length
