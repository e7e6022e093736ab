"""Translate a page: its HTML as it is served, and the texts that its JavaScript asks `_("…")` for.

It reads our own pages alone: a text is on one line, between a tag's `>` and the next `<`, or in an `aria-label`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape, unescape

from chatlab.locale.catalogue import _, shown_language

__all__ = ["html_messages", "javascript_messages", "translated_html", "words_script"]

_HTML_TEXT = re.compile(r'(?P<before>aria-label="|placeholder="|>)(?P<text>[^<>"\s][^<>"\n]*)(?=[<"])')
_JAVASCRIPT_TEXT = re.compile(r'\b_\(("(?:[^"\\\n]|\\.)*")')


def html_messages(html: str) -> Iterator[str]:
    """Yield the visible texts of a page."""
    for found in _HTML_TEXT.finditer(html):
        yield unescape(found["text"])


def javascript_messages(script: str) -> Iterator[str]:
    """Yield the texts that a script passes to `_()`."""
    for found in _JAVASCRIPT_TEXT.finditer(script):
        yield json.loads(found[1])


def translated_html(html: str) -> str:
    """Return the page in the language of this process."""
    html = html.replace('<html lang="en">', f'<html lang="{shown_language()}">')
    return _HTML_TEXT.sub(lambda found: found["before"] + escape(_(unescape(found["text"]))), html)


def words_script(script: str) -> str:
    """Return a script that defines `WORDS`, the translation of each text that `script` asks for."""
    return f"const WORDS = {json.dumps({text: _(text) for text in javascript_messages(script)})};\n"
