"""Lesson 05 as in test_lesson_05.py, on every engine that is here: it takes a quarter of an hour, so it is run by name.

    pytest -p no:nbval tests/notebooks/run_again/lesson_05_on_every_engine.py
"""

from pathlib import Path

import pytest

from tests.support.run_again import run_again


@pytest.mark.timeout(3600)
async def test_every_cell_may_be_run_again_with_the_engines_that_are_here(tmp_path: Path) -> None:
    await run_again("05", tmp_path)
