"""A card with a button that runs its experiment again.

The button's task belongs to the card; an experiment that fails leaves the card as it was, with the error below it in
one sentence. Left out: what the card shows, which is the HTML of the experiment's result (`claims.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from html import escape
from typing import Protocol

import ipywidgets as widgets

from chatlab.locale import _
from chatlab.tasks import Tasks

__all__ = ["Card"]

logger = logging.getLogger(__name__)


class Result(Protocol):
    """What an experiment returns."""

    def _repr_html_(self) -> str: ...


class Card:
    """The card of a result, with a button. Create it inside the kernel's event loop."""

    def __init__(self, name: str, result: Result, again: Callable[[], Awaitable[Result]]) -> None:
        self._again = again
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(logger)
        self._card, self._status = widgets.HTML(result._repr_html_()), widgets.HTML()
        self.button = widgets.Button(
            description=_("Run again"), tooltip=_("Run the experiment for {name} again").format(name=name)
        )
        self.button.on_click(lambda __: self._loop.call_soon_threadsafe(self._start))
        self.box = widgets.VBox([self._card, widgets.HBox([self.button, self._status])])

    def _start(self) -> None:
        if not self.button.disabled:
            self.button.disabled = True
            self._show("status", _("The experiment is running …"))
            self._tasks.start(self._run(), name="run-again")

    async def _run(self) -> None:
        try:
            self._card.value = (await self._again())._repr_html_()
            self._show("status", _("It has run again."))
        except Exception as error:  # shown below the card, not lost with the task
            reason = " ".join(str(error).split()) or type(error).__name__
            self._show("alert", _("The experiment stopped early: {reason}").format(reason=reason))
        finally:
            self.button.disabled = False

    def _show(self, role: str, sentence: str) -> None:
        self._status.value = f"<span role='{role}' style='margin-left:0.5em'>{escape(sentence)}</span>"

    async def idle(self) -> None:
        """Wait until the experiment that the button started has ended."""
        await asyncio.sleep(0)  # the click has been handed over to the loop
        await self._tasks.join(60)
