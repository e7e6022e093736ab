"""Names of rooms and people, in any script: one spelling for what looks the same, and nothing invisible in it.

    room_name("cats")       "cats"            a name for a room, in NFC; None if no room can have it
    shown_name(" 민지\\n")   "민지"            what is left of a name for a person, once it can be shown on one line
    one_spelling(text)      NFC               the form in which names are stored, compared and looked up

고양이 typed on one system and pasted from another can be two sequences of code points (NFC and NFD, Unicode Standard
Annex 15). So every name is brought to NFC where it enters: there is one room, not two that look alike.

A room's name has 1 to 64 code points, and each is one of these:

    letters, marks, numbers     of any script (categories L, M, N) that can be seen (see INVISIBLE); the first one is
                                no mark; marks are what हिन्दी and العَرَبِيَّة are written with
    `_` and `-`
    U+200C and U+200D           the joiners, between two letters or marks of a script that needs them (see JOINING)
    unassigned code points      where Unicode puts scripts (see FUTURE): a browser may know a letter before this Python

Everything else (spaces, punctuation, symbols, controls, surrogates, private use) has a meaning in a destination, a key
or a page, or cannot be seen. The page has the same rule in `web/names.js`, without the unassigned ones.

Left out: which of two different names look alike to a reader (Unicode Technical Standard 39).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_ROOM = 64  # code points
MAX_PERSON = 64

# Arabic, Syriac, N'Ko, the scripts of India, Sri Lanka, Thailand, Laos, Tibet and Burma; Khmer and Mongolian.
_NEEDS_JOINERS = "\u0600-\u109f\u1780-\u18af"
JOINING = re.compile(f"(?<=[{_NEEDS_JOINERS}])[\u200c\u200d](?=[{_NEEDS_JOINERS}])")
JOINERS = "\u200c\u200d"

# Letters and marks that show nothing: fillers, the grapheme joiner, variation selectors.
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")

# Where letters are still to come: the scripts of the BMP and of plane 1, and the ideographs of planes 2 and 3.
FUTURE = re.compile(
    "[\u0370-\u1fff\u2c00-\u2dff\u3040-\ud7ff\uf900-\ufdcf\ufe70-\ufefe"
    "\U00010000-\U0001cfff\U0001e000-\U0001efff\U00020000-\U0002fffd\U00030000-\U0003fffd]"
)


def one_spelling(text: str) -> str:
    """Return `text` in NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@lru_cache(4096)
def room_name(name: str) -> str | None:
    """Return a room's name in NFC, or None if no room can be called that."""
    if len(name) > 4 * MAX_ROOM:  # decomposed, a syllable or letter has up to four code points
        return None
    name = one_spelling(name)
    if not 1 <= len(name) <= MAX_ROOM or unicodedata.category(name[0])[0] == "M" or INVISIBLE.search(name):
        return None
    return name if all(map(_is_a_rooms, JOINING.sub("", name))) else None


def shown_name(text: str) -> str:
    """Return what a person is called who asks to be called `text`: NFC, one line, at most 64 code points; maybe ""."""
    if len(text) <= MAX_PERSON and text.isprintable() and unicodedata.is_normalized("NFC", text):
        return text.strip()  # nearly always: nothing is to be left out
    name = one_spelling(text[: 8 * MAX_PERSON])
    kept = "".join(char for at, char in enumerate(name) if _can_be_shown(char) or JOINING.match(name, at))
    return kept.strip()[:MAX_PERSON].strip().rstrip(JOINERS)


def can_be_shown(name: str) -> bool:
    """Tell whether every character of a name can be shown on one line."""
    return all(_can_be_shown(char) or JOINING.match(name, at) for at, char in enumerate(name))


def goes_on(char: str) -> bool:
    """Tell whether `char` ("" at the end of a text) continues a word that ends before it: a letter, mark, or digit."""
    return char != "" and (char in JOINERS or _is_word(char))


def _is_a_rooms(char: str) -> bool:
    return char == "-" or _is_word(char)


def _is_word(char: str) -> bool:
    return char == "_" or unicodedata.category(char)[0] in "LMN" or _is_to_come(char)


def _can_be_shown(char: str) -> bool:
    return char.isprintable() or _is_to_come(char)


def _is_to_come(char: str) -> bool:
    return unicodedata.category(char) == "Cn" and FUTURE.match(char) is not None
