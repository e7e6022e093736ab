"""A link to a server of this kernel: live in the notebook, and without its address in what is stored."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets

__all__ = ["Link", "link"]

# JupyterLab takes colour and line from every link outside of its own texts; so that it looks like one, ours has them.
LOOK = "color: var(--jp-content-link-color, #0b57d0); text-decoration: underline"


class Link:
    """A link that opens in a new tab. Its address changes with every run, so only the live form has it."""

    def __init__(self, url: str, text: str) -> None:
        self.url = url
        self.text = text
        self.widget = widgets.HTML(
            f"<a href='{escape(url)}' target='_blank' rel='noopener' style='{LOOK}'>{escape(text)}</a>"
        )

    def __repr__(self) -> str:
        return f"{self.text} (while this notebook's kernel runs)"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        html = f"<p>{escape(repr(self))}</p>"
        return {**self.widget._repr_mimebundle_(), "text/html": html, "text/plain": repr(self)}


def link(url: str, text: str) -> Link:
    """A link to `url`, shown as `text`."""
    return Link(url, text)
