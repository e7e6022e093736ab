"""Two rooms whose members are tanks of waiting bytes, with a tap each, and a switch: wait for each send, or not."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["tank_rooms"]


async def tank_rooms() -> widgets.HTML:
    """Two rooms whose members are tanks of waiting bytes, with a tap each, and a switch: wait for each send, or not."""
    return widgets.HTML("tank_rooms")
