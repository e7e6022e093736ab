r"""What Java writes and reads where Python would write and read something else.

    serialize("content")           b"\xac\xed\0\5t\0\7content", as ObjectOutputStream writes a String
    deserialize(octets)            the String again
    to_json("안녕")                b'{"content":"안녕"}', as Jackson writes a ChatMessage
    from_json(b'{"content":1.50}') "1.50", as Jackson reads one

Left out: every other class and type. Sources: Java Object Serialization Specification, chapter 6;
java.io.DataInput for "modified UTF-8".
"""

from __future__ import annotations

import json
import struct
from typing import Any

from chatlab.untrusted_json import parse

HEADER = b"\xac\xed\x00\x05"  # STREAM_MAGIC, STREAM_VERSION
SHORT, LONG = b"t", b"|"  # TC_STRING: two octets of length; TC_LONGSTRING: eight


def serialize(text: str) -> bytes:
    """Return `text` as Java serializes a String."""
    octets = _modified_utf8(text)
    if len(octets) <= 0xFFFF:
        return HEADER + SHORT + struct.pack(">H", len(octets)) + octets
    return HEADER + LONG + struct.pack(">Q", len(octets)) + octets


def deserialize(data: bytes) -> str | None:
    """Return the String in `data`, None if it is empty, as Spring's serializer does. Raise ValueError for any other."""
    if not data:
        return None
    kind, size = data[4:5], {SHORT: 2, LONG: 8}.get(data[4:5], 0)
    if data[:4] != HEADER or not size:
        raise ValueError(f"not a serialized Java String: {data[:8]!r}")
    length, octets = int.from_bytes(data[5 : 5 + size]), data[5 + size :]
    if length != len(octets):
        raise ValueError(f"a Java String ({kind!r}) of {length} octets, but {len(octets)} follow")
    units = octets.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # joins pairs of surrogates


def _modified_utf8(text: str) -> bytes:
    """Return UTF-8 in which NUL takes two octets, and a character beyond U+FFFF is two surrogates of three octets."""
    units = "".join(_surrogates(each) if ord(each) > 0xFFFF else each for each in text)
    return units.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def _surrogates(character: str) -> str:
    high, low = struct.unpack(">HH", character.encode("utf-16-be"))
    return chr(high) + chr(low)


def to_json(content: str | None) -> bytes:
    r"""Return the JSON of a ChatMessage. Characters beyond U+FFFF are escaped, as in `\uD83D\uDE00`."""
    if content is None:
        return b'{"content":null}'
    return f'{{"content":"{"".join(map(_in_json, content))}"}}'.encode("utf-8", "replace")


def _in_json(character: str) -> str:
    if ord(character) > 0xFFFF:
        return "".join(f"\\u{ord(unit):04X}" for unit in _surrogates(character))
    if ord(character) < 0x20 or character in '"\\':
        plain = json.dumps(character)[1:-1]
        return f"\\u{plain[2:].upper()}" if plain.startswith("\\u") else plain
    return character


def from_json(body: bytes) -> str | None:
    """Return the content of a ChatMessage. Raise ValueError where Jackson would not read one.

    An unknown field is ignored, and so is what follows the object; a number or a boolean becomes text; a JSON string
    alone is a message too, by the constructor that takes one.
    """
    value = parse(_decode, body)
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"not a ChatMessage: {body[:40]!r}")
    content = value.get("content")
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, bool):
        return "true" if content else "false"
    raise ValueError(f"content is neither text nor a number: {body[:40]!r}")


def _decode(body: bytes) -> Any:
    decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
    value, _ = decoder.raw_decode(body.decode().lstrip(" \t\r\n"))
    if body.lstrip(b" \t\r\n")[:1] in b"-0123456789":
        raise ValueError("a number is not a ChatMessage")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
