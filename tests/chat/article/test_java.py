"""What Java writes, octet by octet; the values are those that the original wrote when it was run."""

from __future__ import annotations

import pytest

from chatlab.chat.article import java

STRINGS = [
    ("content", b"\xac\xed\0\5t\0\7content"),
    ("안녕", b"\xac\xed\0\5t\0\x06\xec\x95\x88\xeb\x85\x95"),
    ('\x1f</"\x7f😀', b'\xac\xed\0\5t\0\x0b\x1f</"\x7f\xed\xa0\xbd\xed\xb8\x80'),
    ("a\0b", b"\xac\xed\0\5t\0\4a\xc0\x80b"),
    ("", b"\xac\xed\0\5t\0\0"),
    ("x" * 70_000, b"\xac\xed\0\5|\0\0\0\0\0\1\x11\x70" + b"x" * 70_000),
]


@pytest.mark.parametrize(("text", "octets"), STRINGS, ids=lambda each: repr(each)[:16])
def test_a_string_is_serialized_as_java_does_and_read_back(text: str, octets: bytes) -> None:
    assert java.serialize(text) == octets
    assert java.deserialize(octets) == text


def test_no_octets_are_no_string() -> None:
    assert java.deserialize(b"") is None


@pytest.mark.parametrize("octets", [b"plain", b"\xac\xed\0\5", b"\xac\xed\0\5t\0\7cont", b"\xac\xed\0\5sr\0\7content"])
def test_anything_else_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match="Java String"):
        java.deserialize(octets)


@pytest.mark.parametrize(
    ("content", "octets"),
    [
        (None, b'{"content":null}'),
        ("안녕", '{"content":"안녕"}'.encode()),
        ('\x1f</"\\\x7f\n', b'{"content":"\\u001F</\\"\\\\\x7f\\n"}'),
        ("😀", b'{"content":"\\uD83D\\uDE00"}'),
    ],
)
def test_json_is_written_as_jackson_does(content: str | None, octets: bytes) -> None:
    assert java.to_json(content) == octets


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b'{"content":"x","y":1}', "x"),
        (b'{"content":1.50}', "1.50"),
        (b'{"content":true}', "true"),
        (b"{}", None),
        (b'{"content":null}', None),
        (b'"s"', "s"),
        (b' {"content":"x"} and more', "x"),
    ],
)
def test_a_message_is_read_as_jackson_does(body: bytes, content: str | None) -> None:
    assert java.from_json(body) == content


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"5", b"-1", b"null", b'{"con', b'{"content":{}}', b'{"content":NaN}', b"\xff"]
)
def test_what_jackson_does_not_read_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        java.from_json(body)
