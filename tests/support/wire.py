"""Send one request octet by octet, and return everything that the server sends back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from chatlab.chat.endpoint.server import ChatServer

SECONDS = 15.0


@dataclass(frozen=True)
class Answer:
    """What a server sent until it closed or went silent."""

    octets: bytes

    @property
    def status(self) -> int:
        """Return the status of the first answer; 0 if there is none."""
        return int(self.octets.split(b" ", 2)[1]) if self.octets.startswith(b"HTTP/1.") else 0

    @property
    def head(self) -> str:
        """Return the status line and headers in lower case."""
        return self.octets.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def body(self) -> str:
        """Return what follows the headers."""
        return self.octets.partition(b"\r\n\r\n")[2].decode(errors="replace")


async def say(port: int, octets: bytes, *, silence: float = 0.3, host: str = "127.0.0.1") -> Answer:
    """Send `octets`; return what arrives until the server closes, or is silent for `silence` seconds."""
    reader, writer = await asyncio.open_connection(host, port)
    received = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(octets)
        async with asyncio.timeout(SECONDS):
            received = await reader.read(1 << 16)
        while received:
            async with asyncio.timeout(silence):
                more = await reader.read(1 << 16)
            if not more:
                break
            received += more
    writer.close()
    return Answer(received)


async def get(port: int, path: str, *lines: str, method: str = "GET") -> Answer:
    """Request `path` with these header lines, in which PORT is replaced by the port, and close."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", ""]).replace("PORT", str(port))
    return await say(port, head.encode("latin-1"))


async def readyz_is(server: ChatServer, expected: int, reason: str = "") -> str:
    """Poll /readyz until the answer is the expected one, and return its body; answers are cached for two seconds."""
    async with asyncio.timeout(20):
        while True:
            answer = await get(server.port, "/readyz", "Host: 127.0.0.1:PORT")
            if answer.status == expected and reason in answer.body:
                return answer.body
