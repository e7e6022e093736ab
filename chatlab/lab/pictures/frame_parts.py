"""The parts of a frame in words and in colours, and the part that a server's answer is about.

`rows` names each field of a frame, with its value, what that says, and the clause; `groups` are its bytes by part.
`faulty_parts` finds the fields that a Close frame speaks of: by its reason, which each server words differently.
Nothing is refused: bytes that are no valid frame are named as a receiver would read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from chatlab.lab.wire.decode import quoted
from chatlab.locale import _, ngettext
from chatlab.websocket.frames import OPCODES, CloseCode, Header, Opcode, Side, apply_mask

__all__ = ["Group", "Row", "as_dicts", "faulty_parts", "groups", "in_words", "missing", "rest", "rows", "still"]

SHOWN_BYTES: Final = 96
COLOURS: Final = {  # translucent, so that they suit a light and a dark page
    "fin": "#e0557a44",
    "rsv": "#88888844",
    "opcode": "#4a90d944",
    "mask": "#a66fd644",
    "length": "#3fa45b44",
    "extended": "#3fa45b44",
    "key": "#a66fd644",
    "payload": "#d98e2b44",
    "rest": "#d9333344",
}
OPCODE_MEANINGS: Final = {
    Opcode.CONTINUATION: _("CONTINUATION: a further piece of a message"),
    Opcode.TEXT: _("TEXT: a message in UTF-8"),
    Opcode.BINARY: _("BINARY: a message of any bytes"),
    Opcode.CLOSE: _("CLOSE: the end of the connection"),
    Opcode.PING: _("PING: asks for a Pong"),
    Opcode.PONG: _("PONG: answers a Ping"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A field of the frame in words; `key` names it in a program, `colour` is a key of `COLOURS`."""

    key: str
    colour: str
    name: str
    value: str
    meaning: str
    clause: str


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring bytes with one name, in hex."""

    key: str
    colour: str
    name: str
    hex: str


def missing(data: bytes) -> int:
    """Return how many bytes the frame at the start of `data` still needs; at least 1 while its header is incomplete."""
    header = Header.parse(data)
    if header is None:
        return max(1, 2 - len(data))
    return max(0, header.size + header.length - len(data))


def rest(data: bytes) -> bytes:
    """Return the bytes after the frame at the start of `data`."""
    header = Header.parse(data)
    return data[header.size + header.length :] if header is not None else b""


# --- Bytes -----------------------------------------------------------------------------------------------------------


def groups(data: bytes) -> list[Group]:
    """Return the bytes of a frame, part by part; what follows it is one more group."""
    header = Header.parse(data)
    if header is None:
        return [_group("opcode", _("incomplete header"), data)] if data else []
    after = 2 + header.extended
    found = [
        _group("opcode", _("FIN, RSV, opcode"), data[:1]),
        _group("length", _("MASK, length"), data[1:2]),
        _group("extended", _("extended length"), data[2:after]),
        _group("key", _("masking key"), data[after : header.size]),
        _group("payload", _("payload"), data[header.size : header.size + header.length]),
        _group("rest", _("what follows"), rest(data)),
    ]
    return [group for group in found if group.hex]


def _group(key: str, name: str, data: bytes) -> Group:
    return Group(key, key, name, data.hex(" "))


# --- Words -----------------------------------------------------------------------------------------------------------


def rows(data: bytes) -> list[Row]:
    """Return the fields of the frame at the start of `data`, in order; only those of the first byte if it is cut."""
    if not data:
        return []
    header = Header.parse(data)
    found = _first_byte(data[0])
    if len(data) >= 2:
        found += _second_byte(data[1])
    if header is None:
        return found
    if header.extended:
        says = ngettext("{count} byte of payload", "{count} bytes of payload", header.length)
        value = str(header.length)
        found.append(_row("extended", _("extended length"), value, says.format(count=header.length), "§5.2"))
    if header.mask is not None:
        says = _("byte i of the payload is XORed with byte i mod 4 of this key")
        found.append(_row("key", _("masking key"), header.mask.hex(" "), says, "§5.3"))
    found.append(_payload(data, header))
    if after := rest(data):
        says = _("the receiver reads this as the next frame")
        count = ngettext("{count} byte", "{count} bytes", len(after)).format(count=len(after))
        found.append(_row("rest", _("what follows"), count, says, "§5.2"))
    return found


def _row(key: str, name: str, value: str, meaning: str, clause: str, colour: str = "") -> Row:
    return Row(key, colour or key, name, value, meaning, clause)


def _first_byte(first: int) -> list[Row]:
    opcode, fin = first & 0x0F, first >> 7
    last = _("the last frame of its message") if fin else _("more frames of this message follow")
    found = [_row("fin", "FIN", str(fin), last, "§5.4")]
    for number in (1, 2, 3):
        bit = first >> (7 - number) & 1
        says = _("set, but no extension was agreed on") if bit else _("reserved for extensions")
        found.append(_row(f"rsv{number}", f"RSV{number}", str(bit), says, "§5.2", "rsv"))
    known = OPCODE_MEANINGS[Opcode(opcode)] if opcode in OPCODES else _("reserved: nobody knows what it means")
    clause = "§5.5" if opcode >= 8 else "§5.6"
    return [*found, _row("opcode", "opcode", f"{opcode:04b} = {opcode}", known, clause)]


def _second_byte(second: int) -> list[Row]:
    masked, short = second >> 7, second & 0x7F
    says = _("masked, as a client must") if masked else _("not masked, as a server must")
    length = ngettext("{count} byte of payload", "{count} bytes of payload", short).format(count=short)
    if short > 125:
        octets = 2 if short == 126 else 8
        length = _("the next {count} bytes hold the length").format(count=octets)
    return [
        _row("mask", "MASK", str(masked), says, "§5.1"),
        _row("length", _("length"), f"{short:07b} = {short}", length, "§5.2"),
    ]


def _payload(data: bytes, header: Header) -> Row:
    payload = data[header.size : header.size + header.length]
    plain = payload if header.mask is None else apply_mask(payload, header.mask)
    count = ngettext("{count} byte", "{count} bytes", len(payload)).format(count=len(payload))
    says = in_words(header.opcode, plain)
    if short := missing(data):
        due = ngettext("{text}; {count} more byte is due", "{text}; {count} more bytes are due", short)
        says = due.format(text=says, count=short)
    return _row("payload", _("payload"), count, says, "§5.2")


def in_words(opcode: int, plain: bytes) -> str:
    """Return an unmasked payload in words: text in quotes, the code of a Close, or hex."""
    if not plain:
        return _("empty")
    if opcode == Opcode.CLOSE and len(plain) >= 2:
        code = int.from_bytes(plain[:2])
        if len(plain) == 2:
            return _("code {code}, no reason").format(code=code)
        return _("code {code}, reason {reason}").format(code=code, reason=quoted(plain[2:]))
    if opcode == Opcode.BINARY:
        return _shortened(plain.hex(" "))
    try:
        plain.decode()
    except UnicodeDecodeError:
        return _("not UTF-8: {octets}").format(octets=_shortened(plain.hex(" ")))
    return quoted(plain)


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def as_dicts(values: Sequence[Row | Group]) -> list[dict[str, Any]]:
    """Return rows or groups as the page's side reads them."""
    return [asdict(value) for value in values]


# --- What an answer is about -----------------------------------------------------------------------------------------

SPEAKS_OF: Final = (  # a word of the reason, as chatlab's and the library's servers put it, and the field
    ("fragmented", "fin"),
    ("opcode", "opcode"),
    ("mask", "mask"),
    ("continu", "opcode"),
    ("before the message", "opcode"),  # not shown: a server's words
    ("shortest", "extended"),
    ("125", "length"),
    ("too long", "length"),  # not shown: a server's words
    ("length", "length"),
    ("code", "payload"),
    ("utf-8", "payload"),
)


def faulty_parts(data: bytes, code: int | None, reason: str) -> list[str]:
    """Return the keys of the fields that a Close with `code` and `reason` speaks of, after `data` from a client."""
    header = Header.parse(data)
    if header is None:
        return ["opcode"]
    legal = not any(header.problems(Side.CLIENT)) and header.opcode != Opcode.CONTINUATION
    if rest(data) and legal:
        return ["length"]  # the fault is in what follows, or the message was cut in the middle of a letter
    if code == CloseCode.INVALID_PAYLOAD or (header.opcode == Opcode.CLOSE and legal):
        return ["payload"]
    return _spoken_of(header, reason) or _spoken_of(header, next(header.problems(Side.CLIENT), "")) or ["opcode"]


def _spoken_of(header: Header, reason: str) -> list[str]:
    words = re.sub(r"'[^']*'", "", reason).lower()
    if "reserved bit" in words:  # not shown: a server's words
        bits = {"rsv1": header.rsv1, "rsv2": header.rsv2, "rsv3": header.rsv3}
        return [key for key, is_set in bits.items() if is_set]
    key = next((key for word, key in SPEAKS_OF if word in words), "")
    return [key] if key else []


# --- Without a kernel ------------------------------------------------------------------------------------------------


def still(data: bytes) -> str:
    """Return a frame as HTML: its bytes in colours, and a table of its fields."""
    boxes = "".join(_still_group(group) for group in groups(data))
    heads = "".join(f"<th>{escape(name)}</th>" for name in (_("field"), _("value"), _("what it says")))
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left;background:{COLOURS[row.colour]}">{escape(row.name)}</th>'
        f'<td style="text-align:left">{escape(row.value)}</td>'
        f'<td style="text-align:left">{escape(row.meaning)}</td></tr>'
        for row in rows(data)
    )
    return f"<p>{boxes}</p><table><tr>{heads}</tr>{lines}</table>"


def _still_group(group: Group) -> str:
    style = f"display:inline-block;margin:0 0.4em 0.4em 0;padding:0 0.3em;background:{COLOURS[group.colour]}"
    octets = _shortened(group.hex, SHOWN_BYTES * 3)
    return f'<span style="{style}"><code>{escape(octets)}</code><br><small>{escape(group.name)}</small></span>'
