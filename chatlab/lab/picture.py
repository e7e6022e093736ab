"""A drawing for a notebook, accessible to readers who cannot see it.

A notebook shows an `image/svg+xml` output as an image without a name, and a screen reader does not read the title and
the description inside the SVG. In HTML the image has a name, and a text below it says the same.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape

from chatlab.locale import _

__all__ = ["picture"]


def picture(svg: str, name: str, words: str) -> str:
    """Return HTML that shows `svg` as an image called `name`, with the text `words` folded away below it."""
    source = f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
    alternative = escape(_("{name}; in words below").format(name=name))
    summary = escape(_("{name}, in words").format(name=name))
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{alternative}" src="{source}">'
        f"<details><summary>{summary}</summary><pre>{escape(words)}</pre></details></figure>"
    )
