"""Lesson 04: each cell twice, each section alone, and in reverse order. One file a lesson: the workers share them."""

from pathlib import Path

import pytest

from tests.support.run_again import run_again


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_cell_may_be_run_again(tmp_path: Path) -> None:
    await run_again("04", tmp_path)
