"""What the pictures with a server behind them share: what is pressed goes to Python, and Python's state is drawn.

A picture is an `anywidget`. The page's side is a file of JavaScript beside the module, after `common.js`; it sends what
a learner does as a dict with `do`, and draws `state`. All texts come from Python, where they can be translated: those
that never change are in `words`. Network work runs in the background and is bounded in time. After `aclose` the
controls are disabled, and the picture says so.

Left out: a picture on a page without a kernel. There `still` and `plain` are shown instead; they must be the same in
every run, so they name no port.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from typing import Any

import traitlets
from anywidget import AnyWidget

from chatlab.locale import _
from chatlab.tasks import Tasks

__all__ = ["LivePicture", "source"]

logger = logging.getLogger("chatlab.lab.pictures")


def source(*names: str) -> str:
    """Return the text of files in this folder, one after the other."""
    return "\n".join(files("chatlab.lab.pictures").joinpath(name).read_text(encoding="utf-8") for name in names)


class LivePicture(AnyWidget):
    """A picture that a learner plays with. Create it inside the kernel's event loop."""

    _esm = source("common.js")
    _css = source("pictures.css")
    words = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    closed = traitlets.Bool(False).tag(sync=True)

    def __init__(self, words: dict[str, Any]) -> None:
        closed = _("This picture has been closed. Run its cell again to use it.")
        super().__init__(words={**words, "closed": closed})
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(logger)
        self.on_msg(lambda __, content, buffers: self._loop.call_soon_threadsafe(self._handle, content))

    def received(self, content: dict[str, Any]) -> None:
        """Act on what a learner did. Raises `ValueError` with a sentence about bad input; called on the loop."""
        raise NotImplementedError

    def refused(self, sentence: str) -> None:
        """Show a sentence about bad input."""
        self.state = {**self.state, "status": sentence}

    def still(self) -> str:
        """Return the HTML for a page without a kernel."""
        raise NotImplementedError

    def plain(self) -> str:
        """Return the picture as text."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """End the background work, and disable the controls."""
        await self._tasks.aclose()
        self.closed = True

    def _handle(self, content: Any) -> None:
        if self.closed or not isinstance(content, dict):
            return
        try:
            self.received(content)
        except ValueError as error:
            self.refused(str(error))

    def __repr__(self) -> str:
        return self.plain()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None, **options: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/html": self.still(), "text/plain": self.plain()}, metadata
