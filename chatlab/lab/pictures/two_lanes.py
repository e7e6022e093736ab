"""Messages in slow motion on two lanes, HTTP and WebSocket, between the same client and server."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["two_lanes"]


async def two_lanes() -> widgets.HTML:
    """Messages in slow motion on two lanes, HTTP and WebSocket, between the same client and server."""
    return widgets.HTML("two_lanes")
