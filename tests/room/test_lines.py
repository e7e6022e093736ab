"""The room's lines and names, without a room."""

from __future__ import annotations

import sys
import unicodedata

import msgspec
import pytest

from chatlab.errors import HandshakeError
from chatlab.room.lines import Parts, one_line, parts_of, required_name

LINES = [
    ("Server received: hello", Parts("text", text="hello")),
    ("Server received: ", Parts("text", text="")),
    ("Server received from Ana: a: b", Parts("text", sender="Ana", text="a: b")),
    ("Server received from Ana: ", Parts("text", sender="Ana", text="")),
    ("* Ana joined (3 here)", Parts("notice", text="Ana joined (3 here)")),
    ("! not sent: too fast", Parts("error", text="not sent: too fast")),
    ("what else", Parts("text", text="what else")),
]


@pytest.mark.parametrize(("line", "parts"), LINES)
def test_a_line_is_split_into_its_parts(line: str, parts: Parts) -> None:
    assert parts_of(line) == parts


def test_parts_are_encoded_without_missing_fields() -> None:
    assert msgspec.json.encode(Parts("text", sender="Ana", text="")) == b'{"kind":"text","from":"Ana","text":""}'
    assert msgspec.json.encode(Parts("you", name="Ana")) == b'{"kind":"you","name":"Ana"}'


@pytest.mark.long
def test_no_unicode_character_can_break_a_line_or_pass_as_a_control() -> None:
    for number in range(sys.maxunicode + 1):
        if 0xD800 <= number < 0xE000:
            continue
        shown = one_line(f"a{chr(number)}b")
        assert shown.splitlines() == [shown], hex(number)
        assert all(unicodedata.category(char) not in ("Cc", "Zl", "Zp") for char in shown), hex(number)
        assert all(unicodedata.bidirectional(char) not in BIDI_CONTROLS for char in shown), hex(number)


BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\rc\n", "a↵b↵c↵"),
        ("a\tb", "a b"),
        ("\u202ea\u202c", "a"),
        ("\x1b[1m", "\ufffd[1m"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
    ],
)
def test_line_breaks_and_controls_are_replaced(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.long
def test_no_name_contains_a_separator_of_the_line() -> None:
    """Check that a line with any accepted name splits into that name and the text."""
    for number in range(sys.maxunicode + 1):
        if 0xD800 <= number < 0xE000:
            continue
        try:
            name = required_name(f"a{chr(number)}b")
        except HandshakeError:
            continue
        assert parts_of(f"Server received from {name}: a: b") == Parts("text", sender=name, text="a: b"), hex(number)


@pytest.mark.parametrize(("text", "name"), [("", None), ("  ", None), (" a \u3000 b ", "a b"), ("e\u0301", "é")])
def test_a_name_is_normalised(text: str, name: str | None) -> None:
    assert required_name(text) == name
