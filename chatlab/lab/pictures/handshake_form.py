"""The lines of a handshake as a form: each change goes to the servers, and each line shows what they say to it."""

from __future__ import annotations

import ipywidgets as widgets

__all__ = ["handshake_form"]


async def handshake_form(*urls: str) -> widgets.HTML:
    """The lines of a handshake as a form: each change goes to the servers, and each line shows what they say to it."""
    return widgets.HTML("handshake_form")
