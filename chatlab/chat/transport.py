"""A client's end of the wire, for the fan-out to write to: STOMP frames framed for the transport, and a `Sink` for
them.

The same STOMP session runs behind every transport. What differs is how a frame is wrapped (`Framing`) and what takes
the bytes (`Sink`, see fanout.py). Here: WebSocket, on aiohttp. SockJS's are in sockjs.py.

Why not `ws.send_str()`: it is a coroutine per message and subscriber, and no two messages share a write. Bytes go
straight to aiohttp's transport instead, which is safe under three conditions, all held here: no compression (a
compressed message depends on those before it), whole frames only, and nothing once either side has begun to close.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from chatlab.fanout import Sink
from chatlab.websocket.frames import Opcode

# RFC 6455, section 5.5: "All control frames MUST have a payload length of 125 bytes or less"; two are the code's.
MAX_REASON = 123


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


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8; nearly all of it is ASCII, which is seen at a glance."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


WEBSOCKET_FRAMING = WebSocketFraming()


def socket_of(transport: asyncio.Transport) -> int | None:
    """The descriptor to write to without the transport while that has nothing buffered; None if that cannot be done."""
    sock = transport.get_extra_info("socket")
    plain = sock is not None and transport.get_extra_info("sslcontext") is None
    return sock.fileno() if plain and os.name == "posix" else None


class WebSocketSink:
    """An open aiohttp WebSocket as the fan-out sees it."""

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport, name: str) -> None:
        self._ws = ws
        self._transport = transport
        self._name = name
        self._closing: asyncio.Task[bool] | None = None
        self.buffered = transport.get_write_buffer_size  # bytes written that the kernel has not taken yet
        self._is_closing = transport.is_closing
        self._fd = socket_of(transport)

    def __str__(self) -> str:
        return f"connection {self._name}"

    def write(self, data: bytes) -> None:
        """Send whole frames, unless a Close frame has been sent or received."""
        if self._ws.closed or self._is_closing():
            return
        if self._fd is not None and not self.buffered():
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:  # full, or broken: the transport knows what to do about either
                self._transport.write(data)
                return
        if data:
            self._transport.write(data)

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind what is buffered; the client's answer, or a timeout, ends the connection."""
        if self._closing is None and not self._ws.closed:
            message = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
            self._closing = asyncio.create_task(self._ws.close(code=code, message=message, drain=False))

    def abort(self) -> None:
        """Drop the connection with all that is buffered."""
        self._transport.abort()
