"""Sixteen header bits to flip, and a text; the frame goes to a live server, and its answer is shown."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["header_bits"]


async def header_bits(url: str, text: str = "안녕 👋") -> widgets.HTML:
    """Sixteen header bits to flip, and a text; the frame goes to a live server, and its answer is shown."""
    return widgets.HTML("header_bits")
