"""Repeats have a median and a range, and a ratio for each round."""

from __future__ import annotations

import pytest

from chatlab.lab.experiments.repeats import Repeats


def test_repeats_have_a_median_and_a_range() -> None:
    rate = Repeats((9.0, 1.0, 2.0))
    assert (rate.median, rate.low, rate.high) == (2.0, 1.0, 9.0)
    assert Repeats((3.0, 1.0)).median == 2.0


def test_a_ratio_is_taken_within_each_round() -> None:
    assert Repeats((2.0, 9.0)) / Repeats((4.0, 3.0)) == Repeats((0.5, 3.0))
    with pytest.raises(ValueError, match="zip"):
        Repeats((1.0,)) / Repeats((1.0, 2.0))
