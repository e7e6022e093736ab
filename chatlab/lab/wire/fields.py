"""What each octet of an HTTP head, a STOMP frame or a Redis command is for, and the clause that says so.

The same `Field` that `chatlab.websocket.frames.describe` gives for the bits of a frame. As there, nothing is refused:
fields are named as far as the octets make sense, and the rest is one field of octets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chatlab.lab.wire.decode import quoted
from chatlab.websocket.frames import Field

# RFC 6455: 4.1 numbers what the client must send, 4.2.2 (5) what the server must answer. The rest is plain HTTP.
REQUEST_HEADERS: Final = {
    "host": ("the server's name and port, as in the URL", "RFC 6455 §4.1 (4)"),
    "upgrade": ("the protocol to change to", "RFC 6455 §4.1 (5)"),
    "connection": ("Upgrade concerns this hop only", "RFC 6455 §4.1 (6)"),
    "sec-websocket-key": ("16 random octets in base64; a cached answer cannot know them", "RFC 6455 §4.1 (7)"),
    "origin": ("the page whose script asks; browsers send it, pages cannot forge it", "RFC 6455 §4.1 (8)"),
    "sec-websocket-version": ("13 is the RFC's", "RFC 6455 §4.1 (9)"),
    "sec-websocket-protocol": ("subprotocols the client speaks, best first", "RFC 6455 §4.1 (10)"),
    "sec-websocket-extensions": ("extensions the client offers", "RFC 6455 §4.1 (11)"),
}
RESPONSE_HEADERS: Final = {
    "upgrade": ("the protocol changed to", "RFC 6455 §4.2.2 (5.2)"),
    "connection": ("Upgrade concerns this hop only", "RFC 6455 §4.2.2 (5.3)"),
    "sec-websocket-accept": (
        "base64 of SHA-1 of the key and the RFC's GUID: read and understood",
        "RFC 6455 §4.2.2 (5.4)",
    ),
    "sec-websocket-protocol": ("the subprotocol chosen", "RFC 6455 §4.2.2 (5.5)"),
    "sec-websocket-extensions": ("the extensions agreed on", "RFC 6455 §4.2.2 (5.6)"),
}
PLAIN_HEADERS: Final = {
    "host": ("the server's name and port", "RFC 9110 §7.2"),
    "connection": ("what concerns this hop only", "RFC 9110 §7.6.1"),
    "upgrade": ("protocols the sender could change to", "RFC 9110 §7.8"),
    "content-length": ("octets of the body", "RFC 9110 §8.6"),
    "content-type": ("what the body is", "RFC 9110 §8.3"),
    "transfer-encoding": ("how the body is framed", "RFC 9112 §6.1"),
    "user-agent": ("the client's program", "RFC 9110 §10.1.5"),
    "server": ("the server's program", "RFC 9110 §10.2.4"),
    "date": ("when the message was made", "RFC 9110 §6.6.1"),
    "accept": ("what the client can use", "RFC 9110 §12.5.1"),
    "accept-encoding": ("compressions the client can undo", "RFC 9110 §12.5.3"),
    "cache-control": ("whether it may be stored", "RFC 9111 §5.2"),
}


def octets(name: str, start: int, data: bytes, meaning: str, clause: str) -> Field:
    """Return a field of whole octets."""
    return Field(name, start * 8, len(data) * 8, data, meaning, clause)


def describe_bytes(data: bytes, name: str = "octets", clause: str = "") -> list[Field]:
    """One field: octets that say nothing about themselves."""
    return [octets(name, 0, data, quoted(data), clause)] if data else []


# --- HTTP ------------------------------------------------------------------------------------------------------------


def describe_http(data: bytes) -> list[Field]:
    """Name the start line, each header and the empty line of an HTTP head; a body is one field."""
    head, blank, _ = data.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    is_response = start.startswith(b"HTTP/")
    if not blank or not (is_response or b" HTTP/" in start):
        return describe_bytes(data, "body", "RFC 9112 §6")
    upgrades = b"\r\nupgrade: websocket" in head.lower()
    fields = [_start_line(start, is_response, upgrades)]
    at = len(start) + 2
    for line in lines:
        fields.append(_header(at, line, is_response, upgrades))
        at += len(line) + 2
    return [*fields, octets("empty line", at, data[at : at + 2], "the end of the headers", "RFC 9112 §2.1")]


def _start_line(line: bytes, is_response: bool, upgrades: bool) -> Field:
    if is_response:
        clause = "RFC 6455 §4.2.2 (5.1)" if upgrades else "RFC 9112 §4"
        meaning = "HTTP ends here: frames follow" if line.split(b" ")[1:2] == [b"101"] else "version, status, reason"
        return octets("status line", 0, line, meaning, clause)
    meaning = "GET, and HTTP/1.1 at least" if upgrades else "method, target, version"
    return octets("request line", 0, line, meaning, "RFC 6455 §4.1 (2)" if upgrades else "RFC 9112 §3")


def _header(at: int, line: bytes, is_response: bool, upgrades: bool) -> Field:
    name, _, value = line.partition(b":")
    known = PLAIN_HEADERS
    if upgrades:
        known = PLAIN_HEADERS | (RESPONSE_HEADERS if is_response else REQUEST_HEADERS)
    meaning, clause = known.get(name.decode("latin-1").lower(), ("", "RFC 9110 §5"))
    return Field(name.decode("latin-1"), at * 8, len(line) * 8, value.strip(), meaning, clause)


# --- STOMP -----------------------------------------------------------------------------------------------------------

STOMP_HEADERS: Final = {
    "accept-version": "the versions the client speaks",
    "version": "the version to speak from here on",
    "host": "the virtual host the client wants",
    "heart-beat": "the least milliseconds between signs of life: those I can send, those I want",
    "destination": "where to",
    "id": "the subscription's name, chosen by the client",
    "subscription": "the subscription this message is for",
    "message-id": "the message's own name",
    "receipt": "asks for a RECEIPT when this is done",
    "receipt-id": "the receipt that was asked for",
    "ack": "how to acknowledge: a mode (SUBSCRIBE), or this message's name for it (MESSAGE)",
    "transaction": "part of this transaction",
    "content-length": "octets of the body; NULs among them do not end it",
    "content-type": "what the body is",
}


def describe_stomp(data: bytes) -> list[Field]:
    """Name command, headers, empty line, body and NUL of a STOMP frame."""
    head, blank, rest = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    if not blank or b"\r\n" in data:  # with CR LF the places differ: rare enough to be shown as it is
        beat = data in (b"\n", b"\r\n")
        return describe_bytes(data, "heart-beat", "STOMP 1.2, Heart-beating") if beat else describe_bytes(data)
    command, *lines = head.split(b"\n")
    fields = [octets("command", 0, command, "what is asked or told", "STOMP 1.2, STOMP Frames")]
    at = len(command) + 1
    for line in lines:
        name, _, value = line.partition(b":")
        meaning = STOMP_HEADERS.get(name.decode(errors="replace"), "the application's own; goes to the subscribers")
        fields.append(Field(name.decode(errors="replace"), at * 8, len(line) * 8, value, meaning, "STOMP 1.2, Headers"))
        at += len(line) + 1
    fields.append(octets("empty line", at, data[at : at + 1], "the end of the headers", "STOMP 1.2, STOMP Frames"))
    body = rest[: rest.rfind(b"\0")] if b"\0" in rest else rest
    if body:
        fields.append(octets("body", at + 1, body, quoted(body), "STOMP 1.2, Body"))
    end = at + 1 + len(body)
    return [*fields, octets("NUL", end, data[end:], "the end of the frame", "STOMP 1.2, STOMP Frames")]


# --- Redis -----------------------------------------------------------------------------------------------------------

RESP_TYPES: Final = {
    "+": ("simple string", "a short text", "RESP, Simple strings"),
    "-": ("error", "the command failed", "RESP, Simple errors"),
    ":": ("integer", "a 64-bit number", "RESP, Integers"),
    "$": ("bulk string", "octets follow, so many", "RESP, Bulk strings"),
    "*": ("array", "values follow, so many", "RESP, Arrays"),
    "_": ("null", "nothing", "RESP3, Nulls"),
    "#": ("boolean", "true or false", "RESP3, Booleans"),
    ",": ("double", "a floating-point number", "RESP3, Doubles"),
    "(": ("big number", "a number of any size", "RESP3, Big numbers"),
    "!": ("bulk error", "octets of an error follow, so many", "RESP3, Bulk errors"),
    "=": ("verbatim string", "octets follow, the first four say what they are", "RESP3, Verbatim strings"),
    "%": ("map", "pairs follow, so many", "RESP3, Maps"),
    "|": ("attributes", "pairs about the value after them", "RESP3, Attributes"),
    "~": ("set", "values follow, so many", "RESP3, Sets"),
    ">": ("push", "values nobody asked for follow, so many", "RESP3, Pushes"),
}


def describe_redis(data: bytes) -> list[Field]:
    """Name the type lines and the contents of a command or a reply, one after the other."""
    return list(_redis_fields(data))


def _redis_fields(data: bytes) -> Iterator[Field]:
    at = 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        line = data[at : line_end + 2]
        name, meaning, clause = RESP_TYPES.get(chr(line[0]), ("octets", "", ""))
        length = line[1:-2]
        yield octets(name, at, line, meaning, clause)
        at = line_end + 2
        if name in ("bulk string", "bulk error", "verbatim string") and length.isdigit():
            content = data[at : at + int(length) + 2]
            yield octets("content", at, content, quoted(content[:-2]), clause)
            at += len(content)
