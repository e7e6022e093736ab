"""A page on another site that tries to connect, with switches for SameSite and for the origins that the server accepts."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["foreign_page"]


async def foreign_page() -> widgets.HTML:
    """A page on another site that tries to connect, with switches for SameSite and for the origins that the server accepts."""
    return widgets.HTML("foreign_page")
