"""A client's end of the wire, for the fan-out to write to: STOMP frames framed for the transport, and a `Sink` for
them.

The same STOMP session runs behind every transport. What differs is how a frame is wrapped (`Framing`) and what takes
the bytes (`Sink`, see fanout.py). Here: WebSocket's framing. Its sink is in websocket.py, SockJS's are in sockjs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from chatlab.fanout import Sink
from chatlab.websocket.frames import Opcode, is_text


class Framing(Protocol):
    """How a transport wraps STOMP frames: one instance per kind of transport, so that subscribers share bytes."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """Wrap whole STOMP frames, in order."""


class Transport(NamedTuple):
    """One client's transport: how its frames are wrapped, and where they go."""

    framing: Framing
    sink: Sink


class WebSocketFraming:
    """One STOMP frame, one WebSocket message: text if it is UTF-8, else binary (RFC 6455, section 5.6)."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """All of them, each as a message of its own."""
        if len(frames) == 1:
            return websocket_frame(frames[0])
        return b"".join([websocket_frame(data) for data in frames])


_TEXT = 0x80 | Opcode.TEXT
_BINARY = 0x80 | Opcode.BINARY


def websocket_frame(data: bytes) -> bytes:
    """RFC 6455, section 5.2: FIN, the opcode, the length in 7, 16 or 64 bits, and no mask from a server."""
    first, length = _TEXT if is_text(data) else _BINARY, len(data)
    if length < 126:
        return bytes((first, length)) + data
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2) + data
    return bytes((first, 127)) + length.to_bytes(8) + data


WEBSOCKET_FRAMING = WebSocketFraming()
