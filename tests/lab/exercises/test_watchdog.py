"""A check ends code that holds the event loop's thread, and the loop goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from chatlab.lab.exercises import check, watchdog

BLOCKS = {
    "02.1": "def unmask(data, mask):\n    while True:\n        pass",
    "02.4": """import time
async def until_silent(connection, every, patience):
    while True:
        await connection.ping()
        time.sleep(every)
""",
}
SWALLOWS = """import time
async def until_silent(connection, every, patience):
    while True:
        try:
            time.sleep(every)
        except Exception:
            pass
"""


def _typed(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(code, "<cell>", "exec"), names)
    return names["until_silent" if "until_silent" in code else "unmask"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    monkeypatch.setattr(watchdog, "PATIENCE", 1.0)


@pytest.mark.parametrize(("exercise", "code"), [*BLOCKS.items(), ("02.4", SWALLOWS)])
async def test_a_loop_that_never_lets_others_run_is_ended_and_named(exercise: str, code: str) -> None:
    began = time.monotonic()
    outcome = await check(exercise, _typed(code))
    assert time.monotonic() - began < 10
    assert outcome.mark == "not yet"
    assert "stopped the event loop" in outcome.sentence
    assert "await asyncio.sleep" in outcome.sentence
    assert "of your cell" in outcome.evidence
    await asyncio.sleep(3 * watchdog.LOOK)  # the loop goes on, and nothing more is raised in it
    assert (await check("02.1", lambda data, mask: bytes(b ^ mask[i % 4] for i, b in enumerate(data)))).mark == "right"
