"""The poll interval, dragged along a curve of delay and bytes; WebSocket, long polling and SSE are fixed points."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["poll_curve"]


async def poll_curve() -> widgets.HTML:
    """The poll interval, dragged along a curve of delay and bytes; WebSocket, long polling and SSE are fixed points."""
    return widgets.HTML("poll_curve")
