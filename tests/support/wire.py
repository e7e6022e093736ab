"""One request by hand, octet for octet, and all that comes back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

SECONDS = 15.0


@dataclass(frozen=True)
class Answer:
    """What a server said until it closed, or fell silent."""

    octets: bytes

    @property
    def status(self) -> int:
        """The status of the first answer; 0 if there is none."""
        return int(self.octets.split(b" ", 2)[1]) if self.octets.startswith(b"HTTP/1.") else 0

    @property
    def head(self) -> str:
        """Status line and headers, in small letters."""
        return self.octets.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def body(self) -> str:
        """What comes behind them."""
        return self.octets.partition(b"\r\n\r\n")[2].decode(errors="replace")


async def say(port: int, octets: bytes, *, silence: float = 0.3, host: str = "127.0.0.1") -> Answer:
    """Send `octets`; return what comes until the server closes, or has been silent for so long after its answer."""
    reader, writer = await asyncio.open_connection(host, port)
    said = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(octets)
        async with asyncio.timeout(SECONDS):
            said = await reader.read(1 << 16)
        while said:
            async with asyncio.timeout(silence):
                more = await reader.read(1 << 16)
            if not more:
                break
            said += more
    writer.close()
    return Answer(said)


async def get(port: int, path: str, *lines: str, method: str = "GET") -> Answer:
    """Ask for `path` with these header lines (PORT stands for the port), and close."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", ""]).replace("PORT", str(port))
    return await say(port, head.encode("latin-1"))
