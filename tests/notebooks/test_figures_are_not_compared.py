"""nbval compares a verdict's card without its figures, and still compares everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from chatlab.lab.claims import FIGURES

ROOT = Path(__file__).parents[2]
CARD = "<div>C4 {outcome}" + "{value}".join(FIGURES) + "</div>"


@pytest.mark.parametrize(("outcome", "result"), [("holds", "1 passed"), pytest.param("does not hold", "1 failed", marks=pytest.mark.long)])
def test_a_stored_card_equals_that_of_another_run_but_not_one_with_another_outcome(
    tmp_path: Path, outcome: str, result: str
) -> None:
    shown = CARD.format(outcome="holds", value="<b>0.1</b>\n<b>ms</b>")
    cell = nbformat.v4.new_code_cell(f"from IPython.display import HTML, display\ndisplay(HTML({shown!r}))")
    stored = {
        "text/html": CARD.format(outcome=outcome, value="0.2"),
        "text/plain": "<IPython.core.display.HTML object>",
    }
    cell.outputs = [nbformat.v4.new_output("display_data", data=stored)]
    cell.execution_count = 1
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "lesson.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.nbval_figures", "-p", "no:cacheprovider"]
    command += ["--nbval", "--nbval-current-env", "--rootdir", str(tmp_path), "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert result in done.stdout
