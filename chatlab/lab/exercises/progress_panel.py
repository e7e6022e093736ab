"""What the learner has solved, shown in a notebook once they have said that they want it shown.

    progress_panel()

Off by default, since a notebook is often on a projector, and how far one has come is one's own business. The choice is
kept on this machine, as the progress is. `chatlab progress` shows the same in a terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as widgets

from chatlab.lab.exercises.exercise import progress
from chatlab.lab.home import home

__all__ = ["ProgressPanel", "progress_panel"]

WISH = "show here what I have solved"


def progress_panel() -> ProgressPanel:
    """The box to tick, and under it, if it is ticked, how far the learner has come."""
    return ProgressPanel(home() / "progress-is-shown")


class ProgressPanel:
    """A box to tick and a table. The file `mark` is there while the box is ticked."""

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

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/plain": repr(self)}
