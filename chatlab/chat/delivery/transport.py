"""One client's transport, for the fan-out to write to: STOMP frames wrapped for the transport, and a `Sink`.

The same STOMP session runs on every transport. The transports differ in how they wrap a frame (`Framing`) and in what
takes the bytes (`Sink`, see fanout.py). Here: WebSocket's framing. Its sink is in net/endpoint.py, SockJS in sockjs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from chatlab.net.fanout import Sink
from chatlab.websocket.frames import is_text, server_message


class Framing(Protocol):
    """How a transport wraps STOMP frames: one instance per kind of transport, so that subscribers share bytes."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """Wrap whole STOMP frames, in order."""


class ClientTransport(NamedTuple):
    """One client's transport: how its frames are wrapped, and where they go."""

    framing: Framing
    sink: Sink


class WebSocketFraming:
    """One STOMP frame, one WebSocket message: text if it is UTF-8, else binary (RFC 6455, section 5.6)."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """Return each frame as its own message."""
        if len(frames) == 1:
            return websocket_frame(frames[0])
        return b"".join([websocket_frame(data) for data in frames])


def websocket_frame(data: bytes) -> bytes:
    """Return one whole, unmasked message, as a server sends it (RFC 6455, section 5.2)."""
    return server_message(data, is_text(data))


WEBSOCKET_FRAMING = WebSocketFraming()
