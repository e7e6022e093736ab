"""A STOMP client that shows every frame as it is on the wire, on the library `websockets`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect

from chatlab.stomp.frames import Frame, Heartbeat, Parser
from chatlab.websocket.frames import is_text

SECONDS = 15.0  # enough on a busy machine

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Peer:
    """One connection. `async with Peer(url) as peer` connects and waits for CONNECTED."""

    def __init__(
        self,
        url: str,
        login: str | None = None,
        *,
        version: str = "1.2",
        **headers: str,
    ) -> None:
        self.url = url
        self.http: Mapping[str, str] | None = None  # headers of the upgrade
        self.version = version
        self.connected = Frame("CONNECTED")
        self.user_headers = {"accept-version": version, "host": "test", **headers}
        if login is not None:
            self.user_headers["login"] = login
        self.websocket: ClientConnection
        self._parser = Parser(version=version)
        self._frames: list[Frame] = []
        self._numbers = iter(range(1, 1 << 30))

    def through_proxy(self, client: str) -> Self:
        """Make the upgrade look as if a proxy forwarded it for the address `client`."""
        self.http = {"X-Forwarded-For": client}
        return self

    async def open(self) -> Self:
        """Open the WebSocket without a CONNECT."""
        self.websocket = await connect(
            self.url,
            subprotocols=["v12.stomp"],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            max_size=1 << 24,
            additional_headers=self.http,
        )
        return self

    async def __aenter__(self) -> Self:
        await self.open()
        await self.send("CONNECT", **self.user_headers)
        self.connected = await self.frame("CONNECTED")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.websocket.close()

    async def send(self, command: str, body: bytes | str = b"", **headers: str) -> None:
        """Send one frame; `message_id="1"` becomes the header `message-id`."""
        octets = body.encode() if isinstance(body, str) else body
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        # A frame that is not UTF-8 must be sent as binary.
        data = Frame(command, named, octets).serialize(self.version)
        await self.websocket.send(data, text=is_text(data))

    async def frame(self, command: str | None = None, seconds: float = SECONDS) -> Frame:
        """Return the next frame, or the next one of `command`, and keep the others for later."""
        async with asyncio.timeout(seconds):
            while True:
                for number, frame in enumerate(self._frames):
                    if command in (None, frame.command):
                        return self._frames.pop(number)
                data = await self.websocket.recv()
                octets = data.encode() if isinstance(data, str) else data
                self._frames += [f for f in self._parser.feed(octets) if not isinstance(f, Heartbeat)]

    async def receipt(self, command: str, body: bytes | str = b"", **headers: str) -> Frame:
        """Send a frame, and return its RECEIPT."""
        name = f"r{next(self._numbers)}"
        await self.send(command, body, receipt=name, **headers)
        frame = await self.frame("RECEIPT")
        assert frame.get("receipt-id") == name
        return frame

    async def subscribe(self, destination: str, id: str = "sub-0", **headers: str) -> None:
        """Subscribe, and wait for the RECEIPT."""
        await self.receipt("SUBSCRIBE", id=id, destination=destination, **headers)

    async def say(self, content: str, room: str | None = None, **fields: Any) -> None:
        """Send to a room, and wait until the message is stored."""
        await self.receipt("SEND", chat(content, room, **fields), destination="/app/chat.sendMessage")

    async def contents(self, count: int) -> list[str]:
        """Return the contents of the next `count` MESSAGEs."""
        return [json.loads((await self.frame("MESSAGE")).body)["content"] for _ in range(count)]

    async def nothing_more(self) -> None:
        """Raise AssertionError if a frame sent by now has not been read."""
        assert await self.rest() == []

    async def rest(self) -> list[str]:
        """Return the contents of all unread MESSAGEs sent by now, and other frames as text."""
        await self.receipt("SUBSCRIBE", id="nothing", destination="/user/queue/nothing")
        await self.receipt("UNSUBSCRIBE", id="nothing")
        frames, self._frames = self._frames, []
        return [json.loads(frame.body)["content"] if frame.command == "MESSAGE" else str(frame) for frame in frames]

    async def close_code(self) -> int | None:
        """Wait until the server closes; return the close code."""
        async with asyncio.timeout(SECONDS):
            await self.websocket.wait_closed()
        return self.websocket.close_code


def chat(content: str, room: str | None = None, **fields: Any) -> str:
    """Return the body of a SEND to `/app/chat.sendMessage`."""
    return json.dumps({"content": content} | ({"room": room} if room else {}) | fields, ensure_ascii=False)


async def raw_websocket(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket on which the test reads and writes every octet itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer
