"""Progress: what a slow cell is doing, and how far it is.

    with Progress("starting the engines", len(kinds)) as step:
        for kind in kinds:
            step(kind)
            ...

It is displayed below the cell on entry. A stored notebook contains only the title, so that it is the same in every run.
Left out: an estimate of the remaining time.
"""

from __future__ import annotations

import asyncio
import time
from html import escape
from typing import Any, Self

import ipywidgets as widgets
from IPython.display import display

from chatlab.locale import _

__all__ = ["Progress"]

REDRAW_SECONDS = 0.5


class Progress:
    """A bar of `steps` steps, the current work, and the elapsed time. Enter it inside a running event loop."""

    def __init__(self, title: str, steps: int) -> None:
        self.title = title
        self.now: list[str] = []
        self._bar = widgets.IntProgress(min=0, max=steps, layout=widgets.Layout(width="14em"))
        self._line = widgets.HTML()
        self.box = widgets.HBox([self._bar, self._line])
        self._began = time.monotonic()
        self._clock: asyncio.Task[None] | None = None

    def __call__(self, what: str) -> None:
        """Begin `what`; the work before it is done."""
        self._bar.value += bool(self.now)
        self.now = [what]
        self._draw()

    def begin(self, what: str) -> None:
        """Begin `what` in parallel with other work."""
        self.now.append(what)
        self._draw()

    def done(self, what: str) -> None:
        """Mark work that was begun as done."""
        self.now.remove(what)
        self._bar.value += 1
        self._draw()

    def __enter__(self) -> Self:
        display(self)  # type: ignore[no-untyped-call]  # IPython is not typed here
        self._clock = asyncio.create_task(self._tick(), name=f"clock of {self.title}")  # not shown: a task's name
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._clock is not None:
            self._clock.cancel()
        if kind is None:
            self._bar.value = self._bar.max
            self.now = []
        self._draw()

    async def _tick(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(REDRAW_SECONDS)

    def _draw(self) -> None:
        what = ", ".join(self.now) if self.now else _("done") if self._bar.value == self._bar.max else "…"
        elapsed = _("{seconds:.0f} s").format(seconds=time.monotonic() - self._began)
        self._line.value = f"<span role='status'>{escape(self.title)}: <b>{escape(what)}</b> · {elapsed}</span>"

    def __repr__(self) -> str:
        return "⏳ " + _("{title} (the bar moves while this runs)").format(title=self.title)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/plain": repr(self)}
