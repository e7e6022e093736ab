"""A WebSocket client on a bare socket: it reads only when asked to, and can disappear without a Close."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Self
from urllib.parse import urlsplit

from chatlab.websocket.frames import Frame

UPGRADE = (
    "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


class RawMember:
    """A WebSocket client whose socket the test controls. `buffer` holds octets received and not yet parsed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    @classmethod
    async def join(cls, url: str, *, receive_buffer: int | None = None, headers: str = "") -> Self:
        """Connect and do the handshake; with a small `receive_buffer` the server's writes stall soon."""
        parts = urlsplit(url)
        sock = socket.socket()
        if receive_buffer is not None:  # before connecting, because it decides how large a TCP window is offered
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        member = cls(sock)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        await member.send(UPGRADE.format(target=target, host=parts.netloc, more=headers).encode())
        head = await member.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return member

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read_some(self, size: int = 65536) -> bytes:
        """Return the next bytes, b"" at the end of the stream."""
        return await asyncio.get_running_loop().sock_recv(self.sock, size)

    async def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = await self.read_some()
            assert data, f"ended before {mark!r}: {self.buffer!r}"
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    async def read_frame(self) -> Frame | None:
        """Return the next frame, None at the end of the stream."""
        while (parsed := Frame.parse(self.buffer)) is None:
            if not (data := await self.read_some()):
                return None
            self.buffer += data
        frame, size = parsed
        self.buffer = self.buffer[size:]
        return frame

    async def read_to_the_end(self) -> list[Frame]:
        """Return every frame until the server closes or resets the connection."""
        frames = []
        try:
            while (frame := await self.read_frame()) is not None:
                frames.append(frame)
        except ConnectionResetError:
            pass
        return frames

    def vanish(self) -> None:
        """Reset the connection: the server receives an RST and no Close."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def leave(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
