"""A panel for the stepper: stop a message on its way, kill something there, and see who has it.

    stepper = await lab.start("stepper", Stepper(engine).start())
    await lab.start("panel", stepper_panel(stepper))

A line shows the way of the message and where it is held; a table has a row for each step. Without a kernel, the line
and the table stay. The owner of the stepper closes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.experiments.crashes.one_message import STOPS, Stepper, Stop
from chatlab.locale import _
from chatlab.tasks import Tasks

__all__ = ["StepperPanel", "stepper_panel"]

logger = logging.getLogger("chatlab.lab.widgets")

WRAP = "row wrap"  # not shown: CSS
Act = Callable[[], Awaitable[object]]


async def stepper_panel(stepper: Stepper) -> StepperPanel:
    """Return a panel for a stepper that has been started."""
    return StepperPanel(stepper)


class StepperPanel:
    """The buttons of a stepper, the way of its message, and its steps. Create it inside the kernel's event loop."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(logger)
        self._busy = False
        self._error = ""
        self._way, self._table = widgets.HTML(), widgets.HTML()
        stops = [
            self._button(_("Send, hold at {stop}").format(stop=stop), partial(stepper.send, stop)) for stop in STOPS
        ]
        here = [
            self._button(_("Kill the instance"), partial(stepper.kill, "instance")),
            self._button(_("Kill Redis"), partial(stepper.kill, "Redis")),
            self._button(_("Let it go"), stepper.let_go),
        ]
        again = [
            self._button(_("Send again, same id"), partial(stepper.send_again, "same")),
            self._button(_("Send again, new id"), partial(stepper.send_again, "new")),
        ]
        wrapped = widgets.Layout(flex_flow=WRAP)
        rows = [widgets.HBox(buttons, layout=wrapped) for buttons in (stops, here, again)]
        self.box = widgets.VBox([*rows, self._way, self._table])
        self._draw()

    def _button(self, text: str, act: Act) -> widgets.Button:
        button = widgets.Button(description=text, layout=widgets.Layout(width="auto"))
        button.on_click(lambda __: self._loop.call_soon_threadsafe(self._start, act))
        return button

    def _start(self, act: Act) -> None:
        if not self._busy:  # one step at a time; a button pressed meanwhile does nothing
            self._busy = True
            self._tasks.start(self._run(act), name="a step")

    async def _run(self, act: Act) -> None:
        self._error = ""
        self._draw()
        try:
            await act()
        except Exception as error:  # shown in the panel, not lost with the task
            self._error = str(error)
        self._busy = False
        self._draw()

    async def aclose(self) -> None:
        """End a step that is under way."""
        await self._tasks.aclose()
        self._busy = False
        self._draw()

    @property
    def way(self) -> str:
        """The way of the message in one line, with an envelope where it is held."""
        held = self._stepper.held
        links = {stop: "←✉" if stop != "XADD" else "✉→" for stop in STOPS}
        to_sender = links["RECEIPT"] if held == "RECEIPT" else "──"
        to_redis = links[held] if held in ("XADD", "reply") else "──"
        sender, receiver = self._stepper.names
        one, other = _("instance {number}").format(number=1), _("instance {number}").format(number=2)
        return f"{sender} {to_sender} {one} {to_redis} Redis ── {other} ── {receiver}"

    @property
    def state(self) -> str:
        """Where the message is, in words."""
        words: dict[Stop | None, str] = {
            None: _("Nothing is held."),
            "XADD": _("The command XADD is held on its way to Redis."),
            "reply": _("Redis's reply to XADD is held on its way to the instance."),
            "RECEIPT": _("The RECEIPT is held on its way to the sender."),
        }
        return _("◌ one moment …") if self._busy else words[self._stepper.held]

    def _draw(self) -> None:
        error = f"<p role='alert'>{escape(self._error)}</p>" if self._error else ""
        self._way.value = (
            f"<div role='status'><p style='font-family:monospace;white-space:pre-wrap'>{escape(self.way)}</p>"
            f"<p>{escape(self.state)}</p></div>{error}"
        )
        self._table.value = self._stepper.steps._repr_html_() if self._stepper.steps.steps else ""

    # Without a live kernel.

    def __repr__(self) -> str:
        steps = [repr(self._stepper.steps)] if self._stepper.steps.steps else []
        return "\n".join([self.way, self.state, *steps])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def _repr_mimebundle_(self, **__: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}
