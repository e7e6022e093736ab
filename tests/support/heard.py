"""Traces of one connection, as the wire would record them, made from literal bytes."""

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

Segment = tuple[Peer, bytes]
DIALOGUE: tuple[Segment, ...] = (
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


def trace_of(*segments: Segment, cut: str = "whole") -> Trace:
    """Return a trace of one connection that carried these bytes, with one record per segment or one per byte."""
    trace = Trace()
    offsets: dict[Peer, int] = {"client": 0, "server": 0}
    trace.add(WireRecord(0.0, 1, "client", note="open"))
    clock = 0
    for sender, data in segments:
        for piece in [data] if cut == "whole" else [data[i : i + 1] for i in range(len(data))]:
            clock += 1
            record = WireRecord(clock / 1000, 1, sender, piece, offset=offsets[sender])
            record.pass_on(len(piece), clock / 1000)
            offsets[sender] += len(piece)
            trace.add(record)
    return trace


def upgraded_trace(*segments: Segment, extensions: str = "", subprotocol: str = "", cut: str = "whole") -> Trace:
    """Return the same after an upgrade that agreed on these extensions and this subprotocol."""
    response = RESPONSE[:-2]
    if extensions:
        response += b"Sec-WebSocket-Extensions: " + extensions.encode() + b"\r\n"
    if subprotocol:
        response += b"Sec-WebSocket-Protocol: " + subprotocol.encode() + b"\r\n"
    return trace_of(("client", REQUEST), ("server", response + b"\r\n"), *segments, cut=cut)


def summaries(events: Any) -> list[tuple[str, str, str]]:
    return [(event.sender, event.kind, event.summary) for event in events]


def text_frame(message: bytes, mask: bytes | None = None) -> bytes:
    return Frame(Opcode.TEXT, message, mask=mask).serialize()
