from __future__ import annotations

import pytest

from tests.fuzz_websocket import fuzz


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.long) for first in (3_000, 6_000, 9_000))]
)
def test_random_and_corrupted_bytes_are_a_value_or_a_documented_error(first: int) -> None:
    """A bounded set; `make fuzz` runs a million."""
    fuzz(3_000, first)
