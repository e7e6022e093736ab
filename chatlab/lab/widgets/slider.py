"""A slider with a name, which a keyboard moves.

    Slider("Delay, ms", value=200, max=2000, step=10)

The sliders of ipywidgets give the part that one moves no name, so that a screen reader says a number and not of what,
and JupyterLab keeps the arrow keys for itself. This one is the browser's own, inside its label. `value` changes when it
is let go. Left out: a least value other than 0, and anything but whole numbers.
"""

from __future__ import annotations

from importlib.resources import files

import traitlets
from anywidget import AnyWidget

__all__ = ["Slider"]


class Slider(AnyWidget):
    """A slider from 0 to `max`, by `step`; `description` is its name, on the page and for a screen reader."""

    _esm = files("chatlab.lab.widgets").joinpath("slider.js").read_text(encoding="utf-8")
    description = traitlets.Unicode().tag(sync=True)
    value = traitlets.Int(0).tag(sync=True)
    max = traitlets.Int(100).tag(sync=True)
    step = traitlets.Int(1).tag(sync=True)

    def __init__(self, description: str, *, value: int = 0, max: int = 100, step: int = 1, tooltip: str = "") -> None:
        super().__init__(description=description, value=value, max=max, step=step, tooltip=tooltip)

    @traitlets.validate("value")
    def _within(self, proposal: dict[str, int]) -> int:
        return sorted((0, proposal["value"], self.max))[1]
