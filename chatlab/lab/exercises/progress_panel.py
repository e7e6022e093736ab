"""The learner's progress in a notebook, shown only to learners who ask for it.

    progress_panel()

It is off by default: a notebook is often on a projector, and progress is the learner's own business. The choice is kept
on this machine, like the progress. `chatlab progress` prints the same in a terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as widgets

from chatlab.lab.exercises.exercise import progress
from chatlab.lab.home import home
from chatlab.locale import _

__all__ = ["ProgressPanel", "progress_panel"]

WISH = _("show here what I have solved")


def progress_panel() -> ProgressPanel:
    """Return a checkbox with, while it is ticked, the learner's progress below it."""
    return ProgressPanel(home() / "progress-is-shown")


class ProgressPanel:
    """A checkbox and a table. The file `mark` exists while the box is ticked."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        self.wish = widgets.Checkbox(mark.exists(), description=WISH, indent=False, layout=widgets.Layout(width="auto"))
        self.wish.observe(lambda change: self._remember(change["new"]), "value")
        self.table = widgets.HTML()
        self.box = widgets.VBox([self.wish, self.table])
        self._draw()

    def _remember(self, shown: bool) -> None:
        if shown:
            self.mark.touch()
        else:
            self.mark.unlink(missing_ok=True)
        self._draw()

    def _draw(self) -> None:
        self.table.value = progress()._repr_html_() if self.wish.value else ""

    def __repr__(self) -> str:
        return f"☑ {WISH}\n{progress()}" if self.wish.value else f"☐ {WISH}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/plain": repr(self)}
