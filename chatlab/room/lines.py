"""The room's lines and the names in them. Nothing a member writes can pass for a notice or another member's line.

    Server received: hello             a text from a member without a name
    Server received from Ana: hello    a text from a member with a name
    * Ana joined (3 here)              a notice
    ! not sent: ...                    an error

Every message becomes one line (`one_line`): a line break in it is shown as ↵. A name cannot contain a character that
separates the parts of a line (`required_name`). So the start of a line says what it is, and the first colon ends the
name. `parts_of` splits a line again, for clients that show each part in its own place.

Left out: which names look alike (naming.py).
"""

from __future__ import annotations

import re
import unicodedata

import msgspec

from chatlab.errors import HandshakeError
from chatlab.naming import INVISIBLE, can_be_shown, one_spelling

MAX_NAME = 32  # characters
NOTICE, ERROR, TEXT, TEXT_FROM = "* ", "! ", "Server received: ", "Server received from "

# What some program treats as the end of a line (Unicode Standard Annex 14: BK, CR, LF, NL; Python's str.splitlines).
LINE_END = "\u21b5"
_LINE_ENDS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
# Controls that change the direction of the text after them (Unicode Standard Annex 9).
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NOT_IN_A_LINE = re.compile(f"\r\n|[{_LINE_ENDS}]|[\\x00-\\x1f\\x7f-\\x9f]|[{_DIRECTIONS}]")

# Separators of a line's parts, and the characters that look like them: in Unicode's list of confusables, or in NFKC.
_SEPARATORS = re.compile(
    "[*!:()]|[\u204e\u2217\u2731\u2732\u066d\u2055\u01c3\u2757\u2755\u02d0\u02f8\u0589\u0703\u0704\u05c3\u1361\u1803"
    "\u1809\u16ec\u205a\u2236\ua4fd\ua789\ufe30\u2768-\u276b\u3014\u3015\ufd3e\ufd3f\uff65]"
)
_READS_AS_ANOTHER = re.compile("server received|.* (joined|left)\\Z")
_BLANK = re.compile("[\u2800\U0001d159]")  # symbols that show nothing
_DIRECTION = re.compile(f"[{_DIRECTIONS}]")


class Parts(msgspec.Struct, omit_defaults=True, rename={"sender": "from"}):
    """A line as the page receives it, as JSON; or `you`, with the name the member was given."""

    kind: str  # text, notice, error, you
    sender: str | None = None
    text: str | None = None
    name: str | None = None


def one_line(text: str) -> str:
    """Return a text as shown on one line: ↵ for a line break, no control characters, no change of direction."""
    return text if text.isprintable() else _NOT_IN_A_LINE.sub(_shown_instead, text)


def parts_of(line: str) -> Parts:
    """Split a line into its parts. A line in none of the room's forms is a text without a sender."""
    if line.startswith(NOTICE):
        return Parts("notice", text=line.removeprefix(NOTICE))
    if line.startswith(ERROR):
        return Parts("error", text=line.removeprefix(ERROR))
    if line.startswith(TEXT_FROM):
        name, _, text = line.removeprefix(TEXT_FROM).partition(": ")
        return Parts("text", sender=name, text=text)
    return Parts("text", text=line.removeprefix(TEXT))


def required_name(text: str) -> str | None:
    """Return the name that `text` asks for, None if it is blank. Raise HandshakeError if it could mislead."""
    name = " ".join(one_spelling(text).split())
    if not name:
        return None
    if len(name) > MAX_NAME:
        raise HandshakeError(f"name too long: {len(name)} characters, at most {MAX_NAME}")
    if ":" in name or not can_be_shown(name) or _DIRECTION.search(name):
        raise HandshakeError(f"name with a colon or an unprintable character: {name!r}")
    if not any(map(_can_be_seen, INVISIBLE.sub("", name))):
        raise HandshakeError("name that cannot be seen: use letters")
    if _SEPARATORS.search(unicodedata.normalize("NFKC", name)) or _SEPARATORS.search(name):
        raise HandshakeError(f"name with a character that marks a notice: {name!r}; leave out * ! : ( )")
    if _READS_AS_ANOTHER.match(unicodedata.normalize("NFKC", name).casefold()):
        raise HandshakeError(f"name that reads as a notice: {name!r}")
    return name


def _shown_instead(found: re.Match[str]) -> str:
    char = found[0]
    if char[0] in _LINE_ENDS:
        return LINE_END
    if char == "\t":
        return " "
    return "" if _DIRECTION.match(char) else "\ufffd"


def _can_be_seen(char: str) -> bool:
    return unicodedata.category(char)[0] not in "MZC" and _BLANK.match(char) is None
