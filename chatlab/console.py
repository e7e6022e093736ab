"""Standard output and error on a console, pipe or file of any encoding: what it lacks is written another way.

    keep_writing()      once, when a program starts

Windows gives a program whose output is piped the encoding of its region (cp949, cp1252), and `LANG=C` means ASCII.
Python raises UnicodeEncodeError there for the first ✔ or 한글. Here a symbol of ours becomes one that the encoding has
(√ or + for ✔), and any other character its escape (\\uac00 for 가), which unlike a question mark still tells one name
from another. The same goes for a file's name that is not text in this locale.
"""

from __future__ import annotations

import codecs
import io
import sys

__all__ = ["can_show", "keep_writing"]

# In each place the first that the encoding has.
SUBSTITUTES = {
    "✔": "√+",
    "✘": "×x",
    "◐": "~",
    "○": "o",
    "◌": "-",
    "·": "-",
    "•": "*",
    "…": ".",
    "→": ">",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def keep_writing() -> None:
    """Have standard output and error replace what their encoding lacks, whatever the environment has set."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a notebook's, or a test's
            stream.reconfigure(errors=_handler_for(stream.encoding))


def can_show(text: str, encoding: str) -> bool:
    """Whether this encoding has every character of `text`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _handler_for(encoding: str) -> str:
    """Register the error handler of one encoding. The error itself does not say which: for cp1252 it says "charmap"."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(_substitute(char, encoding) for char in error.object[error.start : error.end]), error.end

    name = f"chatlab.console.{encoding}"
    codecs.register_error(name, replace)
    return name


def _substitute(char: str, encoding: str) -> str:
    for other in SUBSTITUTES.get(char, ""):
        if can_show(other, encoding):
            return other
    return char.encode("ascii", "backslashreplace").decode("ascii")
