"""DNS rebinding: a page of evil.example, whose name now resolves to this machine, asks each of the servers to come in.

Its Origin and its Host agree. What they name is somebody else's all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server

UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

Start = Callable[..., Awaitable[Any]]


def start_chat(**options: Any) -> Awaitable[Any]:
    return chat_server.start(MemoryBroker(), **options)


async def status(port: int, line: str, name: str, fields: str = UPGRADE + KEY, scheme: str = "http") -> int:
    """Ask as a page of http://NAME:PORT does, or as one of https://NAME; return the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = f"{name}:{port}" if scheme == "http" else name
    head = f"{line} HTTP/1.1\r\nHost: {host}\r\nOrigin: {scheme}://{host}\r\n{fields}\r\n"
    async with asyncio.timeout(10):
        writer.write(head.encode())
        answer = await reader.readline()
    writer.close()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("start", "path"),
    [
        (echo.start, "/"),
        (echo.start_by_hand, "/"),
        (room.start, "/room"),
        (start_chat, "/ws"),
        (start_chat, "/ws/0/s/websocket"),
    ],
    ids=["echo", "echo by hand", "room", "chat", "chat over SockJS"],
)
async def test_an_upgrade_for_an_unknown_public_host_is_refused(start: Start, path: str) -> None:
    async with await start() as server:
        assert await status(server.port, f"GET {path}", "evil.example") == 403
        for host in ("127.0.0.1", "localhost", "192.0.2.7"):  # the last: a classroom's server, reached over its network
            assert await status(server.port, f"GET {path}", host) == 101


async def test_a_plain_request_for_an_unknown_public_host_is_refused() -> None:
    async with await start_chat() as server:
        for name in ("xhr", "xhr_streaming", "xhr_send"):
            line, fields = f"POST /ws/0/s/{name}", "Content-Length: 0\r\n"
            assert await status(server.port, line, "evil.example", fields) == 403


async def test_a_public_host_is_accepted_once_it_is_named() -> None:
    async with await start_chat(origins=["https://chat.example"]) as server:
        assert await status(server.port, "GET /ws", "chat.example", scheme="https") == 101
        assert await status(server.port, "GET /ws", "evil.example", scheme="https") == 403
