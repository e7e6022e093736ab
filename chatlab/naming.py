"""Names of rooms and people, in any script: one spelling for names that look the same, and no invisible characters.

    room_name("cats")       "cats"            a valid room name in NFC; None if it is not valid
    shown_name(" 민지\\n")   "민지"            a person's name, reduced to what can be shown on one line
    one_spelling(text)      NFC               the form in which names are stored, compared and looked up
    skeletons("Аdmin")      {"adrnin"}        equal for names that look alike: for comparison only, never shown
    mixed_scripts("Аdmin")  CYRILLIC, LATIN   the scripts of a word that can pass for a word in another script

고양이 typed on one system and pasted from another can be two sequences of code points (NFC and NFD, Unicode Standard
Annex 15). So every name is normalised to NFC on input: there is one room, not two that look alike.

A room's name has 1 to 64 code points, each of which must be one of these:

    letters, marks, numbers     of any script (categories L, M, N), unless invisible (see INVISIBLE); the first must not
                                be a mark; marks are used to write हिन्दी and العَرَبِيَّة
    `_` and `-`
    U+200C and U+200D           the joiners, between two letters or marks of a script that needs them (see JOINING)
    unassigned code points      in areas for scripts (see FUTURE): a browser may know a letter before this Python does

Everything else (spaces, punctuation, symbols, controls, surrogates, private use) has a meaning in a destination, a key
or a page, or is invisible. The page has the same rule in `web/names.js`, without the unassigned code points.

Names look alike according to Unicode's list of confusables (Unicode Technical Standard 39, section 4), from the package
`confusable-homoglyphs`. PRECIS's profile for nicknames (RFC 8266) is not used, because it refuses the joiners and
variation selectors that emoji consist of, and does not cover other scripts.

Left out: names that sound alike without looking alike (Jon and John), and right-to-left text except its controls.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from confusable_homoglyphs import categories, confusables

MAX_ROOM = 64  # code points
MAX_PERSON = 64

# Arabic, Syriac, N'Ko, the scripts of India, Sri Lanka, Thailand, Laos, Tibet and Burma; Khmer and Mongolian.
_NEEDS_JOINERS = "\u0600-\u109f\u1780-\u18af"
JOINING = re.compile(f"(?<=[{_NEEDS_JOINERS}])[\u200c\u200d](?=[{_NEEDS_JOINERS}])")
JOINERS = "\u200c\u200d"

# Invisible letters and marks: fillers, the grapheme joiner, variation selectors.
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")

# Blank symbols and letters, for a person's name, which may contain symbols. The variation selectors 15 and 16 are parts
# of emoji and are checked separately.
BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\ufffc"
    "\U00013441\U00013442\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
# The invisible parts of emoji: a joiner between two, and a selector after one ("❤️‍🔥", "1️⃣").
EMOJI_PARTS = re.compile(
    "(?<=[\u2190-\u3299\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u3299\U0001f000-\U0001faff])"
    "|(?<=[#*0-9\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff])[\ufe0e\ufe0f]"
)
MAX_MARKS = 4  # on one letter: UTS 39, section 5.4, calls more than four suspicious
# Scripts with words that can look like words in another script; and scripts that occur together in one word.
_ALIKE = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "OSAGE", "GEORGIAN"}
_TOGETHER = {"LATIN", "HAN", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO"}

# Areas in which letters may still be assigned: scripts in the BMP and plane 1, ideographs in planes 2 and 3.
FUTURE = re.compile(
    "[\u0370-\u1fff\u2c00-\u2dff\u3040-\ud7ff\uf900-\ufdcf\ufe70-\ufefe"
    "\U00010000-\U0001cfff\U0001e000-\U0001efff\U00020000-\U0002fffd\U00030000-\U0003fffd]"
)


def one_spelling(text: str) -> str:
    """Return `text` in NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@lru_cache(4096)
def room_name(name: str) -> str | None:
    """Return a room's name in NFC, or None if it is not valid."""
    if len(name) > 4 * MAX_ROOM:  # a decomposed syllable or letter has up to four code points
        return None
    name = one_spelling(name)
    if not 1 <= len(name) <= MAX_ROOM or unicodedata.category(name[0])[0] == "M" or INVISIBLE.search(name):
        return None
    return name if all(map(_allowed_in_room, JOINING.sub("", name))) else None


def shown_name(text: str) -> str:
    """Return the name for a person who asks for `text`: NFC, one line, at most 64 code points, perhaps ""."""
    return _shown(text[: 8 * MAX_PERSON])


@lru_cache(4096)  # a guest may give its name in every message
def _shown(text: str) -> str:
    if len(text) <= MAX_PERSON and text.isascii() and text.isprintable():
        return " ".join(text.split())  # the usual case: nothing to remove
    name = one_spelling(text)
    kept = "".join(char for at, char in enumerate(name) if _is_kept(name, at))
    name = " ".join(_with_few_marks(kept).split(" "))
    name = " ".join(name.split())[:MAX_PERSON].strip().rstrip(JOINERS)
    return name if any(unicodedata.category(char)[0] not in "MZC" or _may_become_letter(char) for char in name) else ""


def can_be_shown(name: str) -> bool:
    """Tell whether a name can be shown on one line unchanged, and has no invisible characters."""
    name = one_spelling(name)
    return all(_is_kept(name, at) for at in range(len(name))) and _with_few_marks(name) == name


@lru_cache(4096)
def skeletons(name: str) -> frozenset[str]:
    """Return a name's skeletons, ignoring case and spaces. Two names look alike if they have a skeleton in common.

    There are two, because different letters look alike in lower and upper case. They are for comparison only (UTS 39,
    section 4).
    """
    text = unicodedata.normalize("NFKC", name)
    return frozenset({_prototypes_of(text.casefold()), _prototypes_of(_prototypes_of(text).casefold())})


def mixed_scripts(name: str) -> tuple[str, ...]:
    """Return the sorted scripts of the first word that mixes scripts with letters that look alike; () if none does."""
    if name.isascii():
        return ()
    for word in name.split():
        scripts = {categories.alias(char) for char in word} - {"COMMON", "INHERITED", None}
        if len(scripts) > 1 and len(scripts & _ALIKE) > 1 and not scripts <= _TOGETHER:
            return tuple(sorted(scripts))
    return ()


def goes_on(char: str) -> bool:
    """Tell whether `char` ("" at the end of a text) continues the word before it: a letter, mark, or digit does."""
    return char != "" and (char in JOINERS or _is_word(char))


def _allowed_in_room(char: str) -> bool:
    return char == "-" or _is_word(char)


def _is_word(char: str) -> bool:
    return char == "_" or unicodedata.category(char)[0] in "LMN" or _may_become_letter(char)


def _is_kept(name: str, at: int) -> bool:
    char = name[at]
    if char in JOINERS or char in "\ufe0e\ufe0f":
        return JOINING.match(name, at) is not None or EMOJI_PARTS.match(name, at) is not None
    return (char.isprintable() or _may_become_letter(char)) and not BLANK.match(char)


def _with_few_marks(name: str) -> str:
    """Return a name without marks at its start, or so many on one letter that they would cover neighbouring lines."""
    kept, marks = [], MAX_MARKS
    for char in name:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _prototypes_of(name: str) -> str:
    prototypes = _prototypes()
    found = "".join(prototypes.get(char, char) for char in unicodedata.normalize("NFD", name))
    return "".join(char for char in unicodedata.normalize("NFD", found) if _counts(char))


def _counts(char: str) -> bool:
    return not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf") and not BLANK.match(char)


@cache
def _prototypes() -> dict[str, str]:
    """Return the prototype of each character that looks like others: one for each family. Computed on first use."""
    alike: dict[str, set[str]] = {}
    for char, others in confusables.confusables_data.items():
        alike.setdefault(char.strip("\u200e"), set()).update(other["c"].strip("\u200e") for other in others)
    found: dict[str, str] = {}
    for char in alike:
        if char not in found:
            family = set(_family(char, alike))
            prototype = min(family, key=_preference)
            found |= {member: prototype for member in family if len(member) == 1}
    return found


def _family(char: str, alike: dict[str, set[str]]) -> Iterator[str]:
    """Yield `char` and all characters that look like it, directly or through others."""
    seen, waiting = {char}, [char]
    while waiting:
        yield (member := waiting.pop())
        new = alike.get(member, set()) - seen
        seen |= new
        waiting += new


def _preference(member: str) -> tuple[bool, bool, int, str]:
    # "rn" before "m", because only single characters are replaced; and lower case before upper case and digits.
    return not (member.isascii() and member.isalnum()), not member.islower(), -len(member), member


def _may_become_letter(char: str) -> bool:
    return unicodedata.category(char) == "Cn" and FUTURE.match(char) is not None
