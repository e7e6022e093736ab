"""Lesson 05: each cell twice, each section alone, and in reverse order. One file a lesson: the workers share them."""

import sys
from pathlib import Path

import pytest

from tests.support.run_again import run_again


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_cell_may_be_run_again_with_nothing_but_the_redis_in_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # neither Erlang nor Java, nor another Redis
    for variable in ("REDIS_URL", "AMQP_URL", "KAFKA_URL"):
        monkeypatch.delenv(variable, raising=False)
    await run_again("05", tmp_path)
