"""The box of a check: its outcome, and buttons to check again, for the hints, and for the solution.

The box's tasks belong to it. Left out: what is shown, which is HTML made by `exercise.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from html import escape

import ipywidgets as widgets

from chatlab.locale import _
from chatlab.tasks import Tasks

__all__ = ["CheckBox"]

logger = logging.getLogger(__name__)


class CheckBox:
    """An outcome with its buttons. Create it inside the kernel's event loop.

    `again` checks the same answer once more and returns the outcome's HTML.
    """

    def __init__(
        self, id: str, outcome: str, again: Callable[[], Awaitable[str]], hints: Sequence[str], solution: str
    ) -> None:
        self._again, self._hints, self._solution = again, hints, solution
        self._number = 0  # of hints shown
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(logger)
        self.outcome, self.help = widgets.HTML(outcome), widgets.VBox()
        self.check = _button(_("Check again"), _("Check {id} again").format(id=id), self._check)
        self.hint = _button(_("Hint"), _("The first hint for {id}").format(id=id), lambda: self._show_hint(1))
        self.next_hint = _button(
            _("Next hint"), _("The next hint for {id}").format(id=id), lambda: self._show_hint(self._number + 1)
        )
        self.solution = _button(_("Solution"), _("One solution of {id}").format(id=id), self._show_solution)
        self.next_hint.disabled = True
        wrapped = widgets.Layout(flex_flow="row wrap")  # not shown: CSS
        buttons = widgets.HBox([self.check, self.hint, self.next_hint, self.solution], layout=wrapped)
        self.box = widgets.VBox([self.outcome, buttons, self.help])

    def _check(self) -> None:
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if not self.check.disabled:
            self.check.disabled = True
            self.outcome.value = f"<div role='status'>{escape(_('Checking …'))}</div>"
            self._tasks.start(self._run(), name="check")

    async def _run(self) -> None:
        try:
            self.outcome.value = await self._again() + _what_was_checked()
        except Exception as error:  # a fault of the check itself: shown, not lost with the task
            failure = _("The check itself failed: {error}").format(error=error)
            self.outcome.value = f"<div role='alert'>{escape(failure)}</div>"
        finally:
            self.check.disabled = False

    def _show_hint(self, number: int) -> None:
        if self._number < number <= len(self._hints):
            self._number = number
            self._add(self._hints[number - 1])
        self.next_hint.disabled = self._number == len(self._hints)
        if self.next_hint.disabled:
            self.solution.focus()  # the button just pressed would drop the keyboard's focus

    def _show_solution(self) -> None:
        self._add(self._solution)

    def _add(self, html: str) -> None:
        """Show something below what is shown already, once."""
        status = f"<div role='status'>{html}</div>"
        if status not in (each.value for each in self.help.children):
            self.help.children = (*self.help.children, widgets.HTML(status))

    async def idle(self) -> None:
        """Wait until the check that the button started has ended."""
        await asyncio.sleep(0)  # the click has been handed over to the loop
        await self._tasks.join(60)


def _what_was_checked() -> str:
    """Return a sentence, as HTML, for learners who have typed new code: the kernel cannot read the cell."""
    sentence = _("Checked what you ran last. To check new text, run the cell (Shift+Enter).")
    return f"<div style='color:#555'>{escape(sentence)}</div>"


def _button(name: str, tooltip: str, press: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=name, tooltip=tooltip, layout=widgets.Layout(width="auto"))
    button.on_click(lambda __: press())
    return button
