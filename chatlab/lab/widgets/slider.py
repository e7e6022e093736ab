"""A slider with an accessible name that works with the keyboard.

    Slider("Delay, ms", value=200, max=2000, step=10)

In ipywidgets the handle of a slider has no name, so a screen reader reads a number without its meaning, and JupyterLab
takes the arrow keys. This one is the browser's slider inside a label. `value` changes when the handle is released. Left
out: a minimum other than 0, and fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import traitlets
from anywidget import AnyWidget

__all__ = ["Slider"]


class Slider(AnyWidget):
    """A slider from 0 to `max` in steps of `step`; `description` is its name, for screen readers too.

    `words` name the values from 0 on; they are shown, and read aloud, in place of the numbers.
    """

    _esm = files("chatlab.lab.widgets").joinpath("slider.js").read_text(encoding="utf-8")
    description = traitlets.Unicode().tag(sync=True)
    value = traitlets.Int(0).tag(sync=True)
    max = traitlets.Int(100).tag(sync=True)
    step = traitlets.Int(1).tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        description: str,
        *,
        value: int = 0,
        max: int = 100,
        step: int = 1,
        tooltip: str = "",
        words: Sequence[str] = (),
    ) -> None:
        super().__init__(description=description, value=value, max=max, step=step, tooltip=tooltip, words=list(words))

    @traitlets.validate("value")
    def _within(self, proposal: dict[str, int]) -> int:
        return sorted((0, proposal["value"], self.max))[1]
