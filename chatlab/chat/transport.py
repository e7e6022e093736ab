"""A client's end of the wire, for the fan-out to write to: STOMP frames framed for the transport, and a `Sink` for
them.

The same STOMP session runs behind every transport. What differs is how a frame is wrapped (`Framing`) and what takes
the bytes (`Sink`, see fanout.py). Here: WebSocket, on aiohttp. SockJS's are in sockjs.py.

Why not `ws.send_str()`: it is a coroutine per message and subscriber, and no two messages share a write. Bytes go
straight to aiohttp's transport instead, or past that to the socket (direct.py). This is safe under three conditions,
all held here: no compression (a compressed message depends on those before it), whole frames only, and nothing once
either side has begun to close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from chatlab.direct import Direct
from chatlab.fanout import Sink
from chatlab.websocket.frames import Opcode

# RFC 6455, section 5.5: "All control frames MUST have a payload length of 125 bytes or less"; two are the code's.
MAX_REASON = 123
PING_FRAME = bytes((0x80 | Opcode.PING, 0))

logger = logging.getLogger("chatlab.chat")


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


class WebSocket(web.WebSocketResponse):
    """aiohttp's end of a WebSocket, which tells its sink before it sends a Close frame, whatever the reason."""

    sink: WebSocketSink | None = None

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Send a Close frame, and wait for the other's."""
        if self.sink is not None:
            self.sink.never_directly()
        return await super().close(code=code, message=message, drain=drain)


class WebSocketSink(Direct):
    """An open aiohttp WebSocket as the fan-out sees it."""

    def __init__(self, ws: WebSocket, transport: asyncio.Transport, name: str) -> None:
        super().__init__(transport)
        ws.sink = self
        self._ws = ws
        self._name = name
        self._closing: asyncio.Task[bool] | None = None
        self.buffered = transport.get_write_buffer_size  # bytes written that the kernel has not taken yet

    def __str__(self) -> str:
        return f"connection {self._name}"

    def write(self, data: bytes) -> None:
        """Send whole frames, or the rest of one, unless a Close frame has been sent or received."""
        if not (self._ws.closed or self.transport.is_closing()):
            self.transport.write(data)
            self.try_directly()

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind what is buffered; the client's answer, or a timeout, ends the connection."""
        if self._closing is None and not self._ws.closed:
            self.never_directly()
            message = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
            self._closing = asyncio.create_task(self._ws.close(code=code, message=message, drain=False))


class Pings:
    """Asks a silent client whether it is there, and drops one that does not answer.

    It is pinged when nothing has come from it for `seconds`, or half that, and dropped if nothing comes in half that.
    """

    def __init__(self, sink: WebSocketSink, seconds: float) -> None:
        self._sink = sink
        self._interval = seconds / 2
        self._pinged = False
        self._timer = self._later()

    def stop(self) -> None:
        """The connection is over."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        if self._pinged and not self._sink.heard:
            logger.info("no answer to a ping", extra={"connection": str(self._sink)})
            self._sink.abort()
            return
        self._pinged = not self._sink.heard
        if self._pinged:
            self._sink.write(PING_FRAME)
        self._sink.heard = False
        self._timer = self._later()
