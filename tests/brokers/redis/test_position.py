"""The rule that says whether a stream still has what comes after a reader's place."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis.position import Position, StreamState, why_overtaken

MISSING = StreamState()


def state(
    first: str | None, newest: str, length: int, added: int | None = None, deleted: str | None = BEGINNING
) -> StreamState:
    return StreamState(first, newest, length, added, deleted)


@pytest.mark.parametrize(
    ("position", "stream", "kept", "reason"),
    [
        # nothing is missing
        (Position("5-0"), state("1-0", "5-0", 5, 5), True, ""),
        (Position("5-0"), state("1-0", "9-0", 9, 9), True, ""),
        (Position("5-0"), state("5-0", "9-0", 5, 9), True, ""),
        (Position(BEGINNING), MISSING, False, ""),
        (Position(BEGINNING, 0), state("1-0", "3-0", 3, 3), False, ""),
        (Position("5-0"), state(None, "5-0", 0, 5), False, ""),  # all was trimmed, after it was read
        (Position("5-0", 5), state("6-0", "9-0", 4, 9), False, ""),  # trimmed up to the position, as the counts show
        (Position("5-0"), state("1-0", "9-0", 8, 9, "5-0"), False, ""),  # the record at the position was deleted
        (Position("5-0"), state("1-0", "9-0", 7, 9, "7-0"), False, ""),
        # trimmed
        (Position("5-0"), state("7-0", "9-0", 3, 9), False, "trimmed past its reader at 5-0"),
        (Position("5-0", 5), state("7-0", "9-0", 3, 9), False, "trimmed past its reader at 5-0"),
        (Position("5-0"), state(None, "9-0", 0, 9), False, "trimmed past its reader at 5-0"),
        (Position(BEGINNING, 0), state("2001-0", "3000-0", 1000, 3000), False, "trimmed past its reader"),
        (Position(BEGINNING, 0), state(None, "3-0", 0, 3), False, "trimmed past its reader"),
        # the stream was lost: removed, emptied, or it counts from an earlier id again
        (Position("5-0"), MISSING, False, "started over"),
        (Position("5-0", 5), state("1-0", "2-0", 2, 2), False, "started over"),
        (Position("5-0", 5), state("1-0", "4-0", 4, 4), False, "started over"),
        # its end was lost, and it has grown again
        (Position("5-0", 5), state("1-0", "9-0", 5, 5), False, "has lost the record at 5-0"),
        (Position("5-0", 5), state("1-0", "9-0", 5, 5, "4-0"), False, "has lost the record at 5-0"),
        # Redis 6.2 counts nothing
        (Position("5-0"), state("1-0", "9-0", 9, None, None), True, ""),
        (Position("5-0"), state("7-0", "9-0", 3, None, None), False, "trimmed past its reader at 5-0"),
        (Position(BEGINNING), state("1-0", "3-0", 3, None, None), False, ""),
        (Position(BEGINNING), state("2001-0", "3000-0", 1000, None, None), False, "trimmed past its reader"),
    ],
)
def test_a_reader_is_overtaken_if_records_after_its_position_are_gone(
    position: Position, stream: StreamState, kept: bool, reason: str
) -> None:
    found = why_overtaken(position, stream, kept=kept)
    assert (reason in found) if reason else not found


def test_ids_are_compared_as_numbers() -> None:
    assert not why_overtaken(Position("9-9"), state("9-1", "9-10", 10, 10), kept=True)
    assert "started over" in why_overtaken(Position("10-0"), state("9-0", "9-99", 2, 2), kept=False)


def test_a_position_counts_the_records_it_moves_past() -> None:
    position = Position("1-0", 1)
    position.advance("4-0", 3)
    assert (position.id, position.count) == ("4-0", 4)
    unknown = Position("1-0")
    unknown.advance("4-0", 3)
    assert unknown.count is None


@pytest.mark.parametrize("flat", [False, True])
def test_the_reply_of_xinfo_is_read_in_either_form(flat: bool) -> None:
    fields = {
        b"length": 2,
        b"last-generated-id": b"9-0",
        b"max-deleted-entry-id": b"3-0",
        b"entries-added": 7,
        b"first-entry": [b"5-0", [b"body", b"x"]],
    }
    reply = [part for pair in fields.items() for part in pair] if flat else fields
    assert StreamState.parse(reply) == StreamState("5-0", "9-0", 2, 7, "3-0")


def test_a_stream_that_does_not_exist_has_never_had_a_record() -> None:
    assert StreamState.parse(ResponseError("no such key")) == MISSING
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        StreamState.parse(ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"))


def test_where_a_count_is_certain() -> None:
    stream = state("5-0", "9-0", 5, 12)
    assert (stream.count_at("9-0"), stream.count_at(BEGINNING), stream.count_at("6-0")) == (12, 7, None)
    assert state("5-0", "9-0", 5, None).count_at("9-0") is None
