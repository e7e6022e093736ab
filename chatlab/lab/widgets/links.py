"""A link to a server of this kernel: live in the notebook, and stored without its address."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.locale import _

__all__ = ["Link", "link"]

# JupyterLab removes the colour and the underline of links outside its own texts; restore both.
STYLE = "color: var(--jp-content-link-color, #0b57d0); text-decoration: underline"  # not shown: CSS


class Link:
    """A link that opens in a new tab. Only the live form has the address, which changes with every run."""

    def __init__(self, url: str, text: str) -> None:
        self.url = url
        self.text = text
        self.widget = widgets.HTML(
            f"<a href='{escape(url)}' target='_blank' rel='noopener' style='{STYLE}'>{escape(text)}</a>"
        )

    def __repr__(self) -> str:
        return _("{text} (while this notebook's kernel runs)").format(text=self.text)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        html = f"<p>{escape(repr(self))}</p>"
        return {**self.widget._repr_mimebundle_(), "text/html": html, "text/plain": repr(self)}


def link(url: str, text: str) -> Link:
    """Return a link to `url`, shown as `text`."""
    return Link(url, text)
