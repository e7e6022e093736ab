"""The difference between a learner's answer and the expected one, unit by unit.

A unit is a byte in hexadecimal, or a character. In HTML, what differs is struck out in the answer and underlined in the
expected value, so that it can be read without colours. Left out: values of other types, which are compared as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from chatlab.locale import _

__all__ = ["Difference"]

BEFORE, SHOWN = 16, 64  # units shown before the first difference, and in all
STYLES = {
    "del": "background:#c8553d44;text-decoration:line-through",
    "ins": "background:#3a9a5044;text-decoration:underline",
}
VISIBLE = {" ": "␣", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True)
class Difference:
    """A learner's value and the expected one."""

    yours: object
    expected: object

    def __str__(self) -> str:
        """Say where the two begin to differ."""
        yours, expected = self._units()
        at = _first_difference(yours, expected)
        if isinstance(self.yours, bytes) and isinstance(self.expected, bytes):
            sentence = _("they differ from byte {position} on: yours {yours}, expected {expected}")
        else:
            sentence = _("they differ from character {position} on: yours {yours}, expected {expected}")
        return sentence.format(position=at + 1, yours=_unit(yours, at), expected=_unit(expected, at))

    def _repr_html_(self) -> str:
        yours, expected = self._units()
        begin = max(0, _first_difference(yours, expected) - BEFORE)
        both = yours[begin : begin + SHOWN], expected[begin : begin + SHOWN]
        rows = _rows(*both, " " if self._in_bytes else "", VISIBLE if self._in_text else {})
        ends = [_cut(begin, len(units)) for units in (yours, expected)]
        table = "".join(
            f"<tr><th style='text-align:left;padding-right:1em'>{escape(name)}"
            f"<td style='text-align:left'><code>{before}{row}{after}</code></tr>"
            for name, row, (before, after) in zip((_("yours"), _("expected")), rows, ends, strict=True)
        )
        return f"<table style='margin:0.3em 0'>{table}</table><div>{escape(str(self))}</div>"

    @property
    def _in_bytes(self) -> bool:
        return isinstance(self.yours, bytes) and isinstance(self.expected, bytes)

    @property
    def _in_text(self) -> bool:
        """Whether white space can be the difference; between the items of a list it is only notation."""
        return isinstance(self.yours, str) and isinstance(self.expected, str)

    def _units(self) -> tuple[list[str], list[str]]:
        if isinstance(self.yours, bytes) and isinstance(self.expected, bytes):
            return [f"{byte:02x}" for byte in self.yours], [f"{byte:02x}" for byte in self.expected]
        if isinstance(self.yours, str) and isinstance(self.expected, str):
            return list(self.yours), list(self.expected)
        return list(repr(self.yours)), list(repr(self.expected))


def _first_difference(yours: list[str], expected: list[str]) -> int:
    pairs = zip(yours, expected, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(yours), len(expected)))


def _unit(units: list[str], at: int) -> str:
    return VISIBLE.get(units[at], units[at]) if at < len(units) else _("nothing")


def _cut(begin: int, length: int) -> tuple[str, str]:
    return ("… " if begin else "", " …" if length > begin + SHOWN else "")


def _rows(yours: list[str], expected: list[str], separator: str, visible: Mapping[str, str]) -> tuple[str, str]:
    """Return both as HTML, with what differs marked; `visible` has the signs for white space."""
    steps = SequenceMatcher(a=yours, b=expected).get_opcodes()
    mine = [_marked(yours[a:b], "" if tag == "equal" else "del", separator, visible) for tag, a, b, _c, _d in steps]
    theirs = [
        _marked(expected[c:d], "" if tag == "equal" else "ins", separator, visible) for tag, _a, _b, c, d in steps
    ]
    return separator.join(filter(None, mine)), separator.join(filter(None, theirs))


def _marked(units: list[str], tag: str, separator: str, visible: Mapping[str, str]) -> str:
    if not units:
        return ""
    if not tag:
        return escape(separator.join(units))
    text = escape(separator.join(visible.get(unit, unit) for unit in units))
    return f"<{tag} style='{STYLES[tag]}'>{text}</{tag}>"
