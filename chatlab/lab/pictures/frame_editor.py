"""A hand in the wire: a frame is held, a byte of it is changed, and it goes on; both sides show what follows."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["frame_editor"]


async def frame_editor(url: str) -> widgets.HTML:
    """A hand in the wire: a frame is held, a byte of it is changed, and it goes on; both sides show what follows."""
    return widgets.HTML("frame_editor")
