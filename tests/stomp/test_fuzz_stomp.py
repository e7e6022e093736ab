from __future__ import annotations

import pytest

from tests.fuzz_stomp import fuzz


@pytest.mark.parametrize("first", range(0, 12_000, 3_000))
def test_random_and_corrupted_frames_are_frames_or_a_documented_error(first: int) -> None:
    """A bounded set; `make fuzz` runs a million."""
    fuzz(3_000, first)
