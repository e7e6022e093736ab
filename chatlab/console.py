"""Standard output and error in any encoding: characters that it lacks are replaced.

    keep_writing()      # once, when a program starts

Windows gives a program whose output is piped the encoding of its region (cp949, cp1252), and `LANG=C` means ASCII.
Python raises UnicodeEncodeError there at the first ✔ or 한글. Here a known symbol is replaced by one that the encoding
has (√ or + for ✔), and any other character by its escape (\\uac00 for 가), which unlike a question mark still
distinguishes names. This includes file names that cannot be decoded in this locale.
"""

from __future__ import annotations

import codecs
import io
import sys

__all__ = ["can_show", "keep_writing"]

# The first of these that the encoding has is used.
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
    """Make standard output and error replace the characters their encoding lacks, whatever the environment sets."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook or a test
            stream.reconfigure(errors=_handler_for(stream.encoding))


def can_show(text: str, encoding: str) -> bool:
    """Return whether this encoding has every character of `text`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _handler_for(encoding: str) -> str:
    """Register the error handler of one encoding. The error does not name it: for cp1252 it says "charmap"."""

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
