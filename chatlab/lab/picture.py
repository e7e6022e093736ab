"""A drawing for a notebook, for those who see it and for those who do not.

A notebook shows an `image/svg+xml` output as an image without a name, and whatever title and description stand inside
are lost to a screen reader. As HTML the image has a name, and under it opens the same in words.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape

__all__ = ["picture"]


def picture(svg: str, name: str, words: str) -> str:
    """Return HTML that shows `svg` as an image called `name`, with `words` to open under it."""
    source = f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{escape(name)}; in words below" src="{source}">'
        f"<details><summary>{escape(name)}, in words</summary><pre>{escape(words)}</pre></details></figure>"
    )
