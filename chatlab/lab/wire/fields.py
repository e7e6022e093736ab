"""Name each octet of an HTTP head, a STOMP frame or a Redis command, with its meaning and the clause that defines it.

The fields are `Field`s, as `chatlab.websocket.frames.describe` returns for the bits of a frame. As there, nothing is
refused: fields are named as far as the octets make sense, and the rest is one field of octets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chatlab.lab.wire.decode import quoted
from chatlab.locale import _
from chatlab.websocket.frames import Field

# RFC 6455 numbers the requirements on the request in 4.1, and those on the response in 4.2.2 (5). The rest is HTTP.
REQUEST_HEADERS: Final = {
    "host": (_("the server's name and port, as in the URL"), "RFC 6455 §4.1 (4)"),
    "upgrade": (_("the protocol to change to"), "RFC 6455 §4.1 (5)"),
    "connection": (_("Upgrade concerns this connection only"), "RFC 6455 §4.1 (6)"),
    "sec-websocket-key": (_("16 random octets in base64; a cached answer cannot know them"), "RFC 6455 §4.1 (7)"),
    "origin": (_("the page whose script asks; browsers send it, pages cannot forge it"), "RFC 6455 §4.1 (8)"),
    "sec-websocket-version": (_("13 is the RFC's"), "RFC 6455 §4.1 (9)"),
    "sec-websocket-protocol": (_("subprotocols the client speaks, best first"), "RFC 6455 §4.1 (10)"),
    "sec-websocket-extensions": (_("extensions the client offers"), "RFC 6455 §4.1 (11)"),
}
RESPONSE_HEADERS: Final = {
    "upgrade": (_("the protocol changed to"), "RFC 6455 §4.2.2 (5.2)"),
    "connection": (_("Upgrade concerns this connection only"), "RFC 6455 §4.2.2 (5.3)"),
    "sec-websocket-accept": (
        _("base64 of SHA-1 of the key and the RFC's GUID: proof that the request was understood"),
        "RFC 6455 §4.2.2 (5.4)",
    ),
    "sec-websocket-protocol": (_("the subprotocol chosen"), "RFC 6455 §4.2.2 (5.5)"),
    "sec-websocket-extensions": (_("the extensions agreed on"), "RFC 6455 §4.2.2 (5.6)"),
}
PLAIN_HEADERS: Final = {
    "host": (_("the server's name and port"), "RFC 9110 §7.2"),
    "connection": (_("what concerns this connection only"), "RFC 9110 §7.6.1"),
    "upgrade": (_("protocols the sender could change to"), "RFC 9110 §7.8"),
    "content-length": (_("octets of the body"), "RFC 9110 §8.6"),
    "content-type": (_("what the body is"), "RFC 9110 §8.3"),
    "transfer-encoding": (_("how the body is framed"), "RFC 9112 §6.1"),
    "user-agent": (_("the client's program"), "RFC 9110 §10.1.5"),
    "server": (_("the server's program"), "RFC 9110 §10.2.4"),
    "date": (_("when the message was created"), "RFC 9110 §6.6.1"),
    "accept": (_("what the client can use"), "RFC 9110 §12.5.1"),
    "accept-encoding": (_("compressions the client can undo"), "RFC 9110 §12.5.3"),
    "cache-control": (_("whether it may be stored"), "RFC 9111 §5.2"),
}


def octets(name: str, start: int, data: bytes, meaning: str, clause: str) -> Field:
    """Return a field of whole octets."""
    return Field(name, start * 8, len(data) * 8, data, meaning, clause)


def describe_bytes(data: bytes, name: str = "octets", clause: str = "") -> list[Field]:
    """Return one field of octets without structure."""
    return [octets(name, 0, data, quoted(data), clause)] if data else []


# --- HTTP ------------------------------------------------------------------------------------------------------------


def describe_http(data: bytes) -> list[Field]:
    """Name the start line, each header and the empty line of an HTTP head; a body is one field."""
    head, blank, __ = data.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    is_response = start.startswith(b"HTTP/")
    if not blank or not (is_response or b" HTTP/" in start):
        return describe_bytes(data, _("body"), "RFC 9112 §6")
    upgrades = b"\r\nupgrade: websocket" in head.lower()
    fields = [_start_line(start, is_response, upgrades)]
    at = len(start) + 2
    for line in lines:
        fields.append(_header(at, line, is_response, upgrades))
        at += len(line) + 2
    return [*fields, octets(_("empty line"), at, data[at : at + 2], _("the end of the headers"), "RFC 9112 §2.1")]


def _start_line(line: bytes, is_response: bool, upgrades: bool) -> Field:
    if is_response:
        clause = "RFC 6455 §4.2.2 (5.1)" if upgrades else "RFC 9112 §4"
        is_upgrade = line.split(b" ")[1:2] == [b"101"]
        meaning = _("HTTP ends here: frames follow") if is_upgrade else _("version, status, reason")
        return octets(_("status line"), 0, line, meaning, clause)
    meaning = _("GET, and HTTP/1.1 at least") if upgrades else _("method, target, version")
    return octets(_("request line"), 0, line, meaning, "RFC 6455 §4.1 (2)" if upgrades else "RFC 9112 §3")


def _header(at: int, line: bytes, is_response: bool, upgrades: bool) -> Field:
    name, __, value = line.partition(b":")
    known = PLAIN_HEADERS
    if upgrades:
        known = PLAIN_HEADERS | (RESPONSE_HEADERS if is_response else REQUEST_HEADERS)
    meaning, clause = known.get(name.decode("latin-1").lower(), ("", "RFC 9110 §5"))
    return Field(name.decode("latin-1"), at * 8, len(line) * 8, value.strip(), meaning, clause)


# --- STOMP -----------------------------------------------------------------------------------------------------------

STOMP_HEADERS: Final = {
    "accept-version": _("the versions the client speaks"),
    "version": _("the version to speak from here on"),
    "host": _("the virtual host the client wants"),
    "login": _("who the client is"),
    "passcode": _("the proof of who the client is; for the server only"),
    "heart-beat": _("milliseconds between heart-beats: what the sender can guarantee, what it wants"),
    "destination": _("the destination"),
    "id": _("the subscription's identifier, chosen by the client"),
    "subscription": _("the subscription this message is for"),
    "message-id": _("the message's identifier"),
    "receipt": _("asks for a RECEIPT when this frame has been processed"),
    "receipt-id": _("the receipt that was requested"),
    "ack": _("how to acknowledge: a mode (SUBSCRIBE), or this message's identifier for ACK (MESSAGE)"),
    "transaction": _("part of this transaction"),
    "content-length": _("octets of the body; NULs among them do not end it"),
    "content-type": _("what the body is"),
}
USER_DEFINED: Final = _("defined by the application; passed on to the subscribers")


def describe_stomp(data: bytes) -> list[Field]:
    """Name command, headers, empty line, body and NUL of a STOMP frame."""
    head, blank, rest = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    if not blank or b"\r\n" in data:  # with CR LF the positions differ; that is rare enough to be shown as plain octets
        beat = data in (b"\n", b"\r\n")
        return describe_bytes(data, _("heart-beat"), "STOMP 1.2, Heart-beating") if beat else describe_bytes(data)
    command, *lines = head.split(b"\n")
    fields = [octets(_("command"), 0, command, _("the kind of frame"), "STOMP 1.2, STOMP Frames")]
    at = len(command) + 1
    for line in lines:
        name, __, value = line.partition(b":")
        meaning = STOMP_HEADERS.get(name.decode(errors="replace"), USER_DEFINED)
        fields.append(Field(name.decode(errors="replace"), at * 8, len(line) * 8, value, meaning, "STOMP 1.2, Headers"))
        at += len(line) + 1
    fields.append(
        octets(_("empty line"), at, data[at : at + 1], _("the end of the headers"), "STOMP 1.2, STOMP Frames")
    )
    body = rest[: _body_length(lines, rest)]
    if body:
        fields.append(octets(_("body"), at + 1, body, quoted(body), "STOMP 1.2, Body"))
    end = at + 1 + len(body)
    nul, more = data[end : end + 1], data[end + 1 :]
    meaning = _("the end of the frame") if nul else _("missing: the frame has not ended")
    fields.append(octets("NUL", end, nul, meaning, "STOMP 1.2, STOMP Frames"))
    after = octets(_("more"), end + 1, more, _("no part of this frame"), "STOMP 1.2, STOMP Frames")
    return [*fields, after] if more else fields


def _body_length(lines: list[bytes], rest: bytes) -> int:
    """Return the octets of the body: as many as content-length says; without it, those before the first NUL."""
    said = next(
        (value for name, __, value in (line.partition(b":") for line in lines) if name == b"content-length"), b""
    )
    if said.isdigit() and rest[int(said) : int(said) + 1] == b"\0":
        return int(said)
    return rest.find(b"\0") if b"\0" in rest else len(rest)


# --- Redis -----------------------------------------------------------------------------------------------------------

RESP_TYPES: Final = {
    "+": (_("simple string"), _("a short text"), "RESP, Simple strings"),  # not shown: a title
    "-": (_("error"), _("the command failed"), "RESP, Simple errors"),  # not shown: a title
    ":": (_("integer"), _("a 64-bit number"), "RESP, Integers"),
    "$": (_("bulk string"), _("that many octets follow"), "RESP, Bulk strings"),  # not shown: a title
    "*": (_("array"), _("that many values follow"), "RESP, Arrays"),
    "_": (_("null"), _("nothing"), "RESP3, Nulls"),
    "#": (_("boolean"), _("true or false"), "RESP3, Booleans"),
    ",": (_("double"), _("a floating-point number"), "RESP3, Doubles"),
    "(": (_("big number"), _("a number of any size"), "RESP3, Big numbers"),  # not shown: a title
    "!": (_("bulk error"), _("that many octets of an error follow"), "RESP3, Bulk errors"),  # not shown: a title
    "=": (
        _("verbatim string"),
        _("that many octets follow; the first four name the format"),
        "RESP3, Verbatim strings",  # not shown: a title
    ),
    "%": (_("map"), _("that many pairs follow"), "RESP3, Maps"),
    "|": (_("attributes"), _("that many pairs describe the next value"), "RESP3, Attributes"),
    "~": (_("set"), _("that many values follow"), "RESP3, Sets"),
    ">": (_("push"), _("that many values follow, without a request"), "RESP3, Pushes"),
}
BULK_TYPES: Final = (b"$", b"!", b"=")


def describe_redis(data: bytes) -> list[Field]:
    """Name the type lines and the contents of a command or a reply, in order."""
    return list(_redis_fields(data))


def _redis_fields(data: bytes) -> Iterator[Field]:
    at = 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        line = data[at : line_end + 2]
        name, meaning, clause = RESP_TYPES.get(chr(line[0]), (_("octets"), "", ""))
        length = line[1:-2]
        yield octets(name, at, line, meaning, clause)
        at = line_end + 2
        if line[:1] in BULK_TYPES and length.isdigit():
            content = data[at : at + int(length) + 2]
            yield octets(_("content"), at, content, quoted(content[:-2]), clause)
            at += len(content)
