"""Progress: what a cell that takes a while is doing, and how far it has come.

    with Progress("starting the engines", len(kinds)) as step:
        for kind in kinds:
            step(kind)
            ...

Shows itself on entry, under the cell. A stored notebook keeps the title alone, so that it stays the same from run to
run. Left out: estimates of the time that is left; nobody here knows it.
"""

from __future__ import annotations

import asyncio
import time
from html import escape
from typing import Any, Self

import ipywidgets as widgets
from IPython.display import display

__all__ = ["Progress"]

REDRAW_SECONDS = 0.5


class Progress:
    """A bar of `steps` steps, what is being done now, and for how long. Must be entered inside a running event loop."""

    def __init__(self, title: str, steps: int) -> None:
        self.title = title
        self.now: list[str] = []
        self._bar = widgets.IntProgress(min=0, max=steps, layout=widgets.Layout(width="14em"))
        self._line = widgets.HTML()
        self.box = widgets.HBox([self._bar, self._line])
        self._began = time.monotonic()
        self._clock: asyncio.Task[None] | None = None

    def __call__(self, what: str) -> None:
        """One thing has begun; with it, what began before is done."""
        self._bar.value += bool(self.now)
        self.now = [what]
        self._draw()

    def begin(self, what: str) -> None:
        """One thing has begun, beside others."""
        self.now.append(what)
        self._draw()

    def done(self, what: str) -> None:
        """One of the things that were begun is done."""
        self.now.remove(what)
        self._bar.value += 1
        self._draw()

    def __enter__(self) -> Self:
        display(self)  # type: ignore[no-untyped-call]  # IPython is not typed here
        self._clock = asyncio.create_task(self._tick(), name=f"clock of {self.title}")
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
        what = ", ".join(self.now) if self.now else "done" if self._bar.value == self._bar.max else "…"
        seconds = time.monotonic() - self._began
        self._line.value = f"<span role='status'>{escape(self.title)}: <b>{escape(what)}</b> · {seconds:.0f} s</span>"

    def __repr__(self) -> str:
        return f"⏳ {self.title} (the bar moves while this runs)"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/plain": repr(self)}
