"""Progress in a notebook: hidden until the learner ticks the box, then shown each time."""

import re
from pathlib import Path

import pytest

from chatlab.lab.exercises.exercise import check, find
from chatlab.lab.exercises.progress_panel import progress_panel


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


async def test_progress_is_hidden_until_the_box_is_ticked() -> None:
    await check("03.1", find("03.1").reference)
    panel = progress_panel()
    assert repr(panel) == "☐ show here what I have solved"
    assert panel.table.value == ""


async def test_a_ticked_box_shows_the_progress_and_stays_ticked() -> None:
    await check("03.1", find("03.1").reference)
    progress_panel().wish.value = True
    panel = progress_panel()
    assert panel.wish.value
    assert "lesson 03  ✔ ○" in repr(panel)
    assert re.search(r"<td [^>]*>03<td [^>]*>✔ ○", panel.table.value)


def test_unticking_the_box_hides_the_progress() -> None:
    panel = progress_panel()
    panel.wish.value = True
    panel.wish.value = False
    assert panel.table.value == ""
    assert not progress_panel().wish.value


def test_the_notebook_stores_the_panel_as_plain_text() -> None:
    assert progress_panel()._repr_mimebundle_()["text/plain"] == "☐ show here what I have solved"
