"""Heart-beats: the agreed intervals, and when each is due."""

from __future__ import annotations

import pytest

from chatlab.errors import StompError
from chatlab.stomp.heartbeat import HeartBeat, agree, parse_heart_beat


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((0, 0), (0, 0), (0, 0)),
        ((10, 20), (0, 0), (0, 0)),
        ((10, 20), (30, 40), (40, 30)),  # the larger number, in each direction
        ((50, 60), (30, 40), (50, 60)),
        ((0, 20), (30, 40), (0, 30)),  # we cannot send
        ((10, 0), (30, 40), (40, 0)),  # we want nothing
        ((10, 20), (0, 40), (40, 0)),  # they cannot send
        ((10, 20), (30, 0), (0, 30)),  # they want nothing
    ],
)
def test_the_larger_interval_wins_and_zero_means_no_heart_beats(
    ours: tuple[int, int], theirs: tuple[int, int], agreed: tuple[int, int]
) -> None:
    assert agree(ours, theirs) == agreed
    assert agree(theirs, ours) == agreed[::-1]  # both sides come to the same result


def test_a_missing_header_means_no_heart_beats() -> None:
    assert parse_heart_beat(None) == (0, 0)
    assert parse_heart_beat("10,2000") == (10, 2000)


@pytest.mark.parametrize("value", ["", "1", "1,2,3", "-1,0", "1, 2", "a,b", "1.5,2", "9999999999,0"])
def test_a_heart_beat_is_two_numbers(value: str) -> None:
    with pytest.raises(StompError, match="heart-beat"):
        parse_heart_beat(value)


def test_sending_is_due_before_the_interval_ends_and_receiving_after_it() -> None:
    beat = HeartBeat((1000, 2000), now=100.0)
    assert beat.send_by() == 100.8
    assert beat.receive_by() == 103.0
    beat.record_sent(101.0)
    beat.record_received(102.0)
    assert beat.send_by() == 101.8
    assert beat.receive_by() == 105.0


def test_without_heart_beats_no_deadline_is_due() -> None:
    beat = HeartBeat((0, 0), now=100.0)
    assert beat.send_by() == beat.receive_by() == float("inf")


def test_a_short_interval_has_half_a_second_of_tolerance() -> None:
    assert HeartBeat((0, 100), now=100.0).receive_by() == 100.6
