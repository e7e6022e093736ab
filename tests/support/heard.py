"""What a wire would have heard, said by a test: traces of one connection from literal bytes."""

from __future__ import annotations

from typing import Any

from chatlab.lab.wire.trace import Peer, Trace, WireRecord
from chatlab.websocket.frames import Frame, Opcode

MASK = b"\x37\xfa\x21\x3d"
REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
HELLO = b"\x81\x05Hello"  # RFC 6455, section 5.7
MASKED_HELLO = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"

Said = tuple[Peer, bytes]
DIALOGUE: tuple[Said, ...] = (
    ("client", REQUEST),
    ("server", RESPONSE),
    ("client", MASKED_HELLO),
    ("server", HELLO),
    ("server", b"\x89\x05Hello"),
    ("client", b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
    ("client", b"\x88\x82\x37\xfa\x21\x3d\x34\x12"),
    ("server", b"\x88\x02\x03\xe8"),
)
CUTS = ["whole", "byte by byte"]


def heard(*said: Said, cut: str = "whole") -> Trace:
    """A trace of one connection on which this was said, each piece in one record or in one for each byte."""
    trace = Trace()
    at: dict[Peer, int] = {"client": 0, "server": 0}
    trace.add(WireRecord(0.0, 1, "client", note="open"))
    clock = 0
    for sender, data in said:
        for piece in [data] if cut == "whole" else [data[i : i + 1] for i in range(len(data))]:
            clock += 1
            record = WireRecord(clock / 1000, 1, sender, piece, offset=at[sender])
            record.pass_on(len(piece), clock / 1000)
            at[sender] += len(piece)
            trace.add(record)
    return trace


def upgraded(*said: Said, extensions: str = "", subprotocol: str = "", cut: str = "whole") -> Trace:
    """As `heard`, after an upgrade that agreed on these."""
    response = RESPONSE[:-2]
    if extensions:
        response += b"Sec-WebSocket-Extensions: " + extensions.encode() + b"\r\n"
    if subprotocol:
        response += b"Sec-WebSocket-Protocol: " + subprotocol.encode() + b"\r\n"
    return heard(("client", REQUEST), ("server", response + b"\r\n"), *said, cut=cut)


def told(events: Any) -> list[tuple[str, str, str]]:
    return [(event.sender, event.kind, event.summary) for event in events]


def in_frame(message: bytes, mask: bytes | None = None) -> bytes:
    return Frame(Opcode.TEXT, message, mask=mask).serialize()
