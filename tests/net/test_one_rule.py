"""Every server of the package applies one rule to upgrades: the same request gets the same answer everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server

pytestmark = pytest.mark.every_loop

Start = Callable[..., Awaitable[Any]]


def start_chat(**options: Any) -> Awaitable[Any]:
    return chat_server.start(MemoryBroker(), **options)


SERVERS: dict[str, tuple[Start, str]] = {
    "echo": (echo.start, "/"),
    "echo by hand": (echo.start_by_hand, "/"),
    "room": (room.start, "/room"),
    "the article's room": (room.start_as_in_the_article, "/room"),
    "chat": (start_chat, "/ws"),
    "chat, raw WebSocket of SockJS": (start_chat, "/ws/websocket"),
    "chat over SockJS": (start_chat, "/ws/0/s/websocket"),
}
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", KEY)
OWN = "127.0.0.1:PORT"
CLASS = "https://class.example"  # the origin that the servers below allow


async def ask(port: int, path: str, *lines: str) -> int:
    """Send a GET with these header lines; PORT is replaced by the server's port. Return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).replace("PORT", str(port))
    writer.write(head.encode())
    async with asyncio.timeout(10):
        answer = await reader.readline()
    writer.close()
    return int(answer.split()[1])


@pytest.fixture
async def servers() -> AsyncIterator[list[tuple[str, int, str]]]:
    async with AsyncExitStack() as stack:
        started: dict[Start, int] = {}
        for start, _ in SERVERS.values():
            if start not in started:
                started[start] = (await stack.enter_async_context(await start(origins=[CLASS]))).port
        yield [(name, started[start], path) for name, (start, path) in SERVERS.items()]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Host: {OWN}", *UPGRADE], 101),
        ([f"Host: {OWN}", f"Origin: http://{OWN}", *UPGRADE], 101),
        ([f"Host: {OWN}", f"Origin: {CLASS}", *UPGRADE], 101),
        ([f"Host: {OWN}", "Origin: https://evil.example", *UPGRADE], 403),
        ([f"Host: {OWN}", "Origin: null", *UPGRADE], 403),
        ([f"Host: {OWN}", "Origin:", *UPGRADE], 403),
        ([f"Host: {OWN}", f"Origin: {CLASS}, https://evil.example", *UPGRADE], 403),
        (["Host: evil.example:PORT", "Origin: http://evil.example:PORT", *UPGRADE], 403),
        ([f"Host: {OWN}", f"Origin: http://{OWN}", "Origin: https://evil.example", *UPGRADE], 400),
        ([f"Host: {OWN}", "Origin: https://evil.example", f"Origin: {CLASS}", *UPGRADE], 400),
        ([f"Host: {OWN}", f"Origin: {CLASS}", f"origin: {CLASS}", *UPGRADE], 400),
        ([f"Host: {OWN}", "Host: evil.example", *UPGRADE], 400),
        ([f"Host: {OWN}", f"host: {OWN}", f"Origin: http://{OWN}", *UPGRADE], 400),
        ([*UPGRADE], 400),
        ([f"Host: {OWN}", *UPGRADE, "Sec-WebSocket-Protocol: v12.stomp, v12.stomp"], 400),
        ([f"Host: {OWN}", *UPGRADE, "Sec-WebSocket-Protocol: v12.stomp, not a token"], 400),
        ([f"Host: {OWN}", *UPGRADE, "Sec-WebSocket-Protocol: unheard-of"], 101),
        ([f"Host: {OWN}", *UPGRADE, KEY], 400),
        ([f"Host: {OWN}", *UPGRADE[:-1], "Sec-WebSocket-Key: c2hvcnQ="], 400),
        ([f"Host: {OWN}", "Upgrade: websocket", "Connection: keep-alive, upgrade", *UPGRADE[2:]], 101),
    ],
)
async def test_every_server_gives_the_same_answer_to_a_request(
    servers: list[tuple[str, int, str]], lines: Sequence[str], status: int
) -> None:
    answers = {name: await ask(port, path, *lines) for name, port, path in servers}
    assert answers == dict.fromkeys(SERVERS, status)


async def test_every_server_answers_an_unsupported_version_with_version_13(servers: list[tuple[str, int, str]]) -> None:
    for name, port, path in servers:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *UPGRADE[:2], "Sec-WebSocket-Version: 8", KEY, "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 426 "), name
        assert b"\r\nsec-websocket-version: 13\r\n" in head.lower(), name


@pytest.mark.parametrize("name", ["info", "0/s/eventsource"])
async def test_sockjs_over_http_applies_the_same_origin_rule(name: str) -> None:
    async with await start_chat(origins=[CLASS]) as server:

        async def status_of(*lines: str) -> int:
            return await ask(server.port, f"/ws/{name}", *lines)

        assert await status_of(f"Host: {OWN}", f"Origin: {CLASS}") == 200
        assert await status_of(f"Host: {OWN}", "Origin: https://evil.example") == 403
        assert await status_of(f"Host: {OWN}", f"Origin: {CLASS}", "Origin: https://evil.example") == 400
        assert await status_of(f"Host: {OWN}", f"Origin: http://{OWN}", f"Origin: http://{OWN}") == 400
        assert await status_of(f"Host: {OWN}", "Host: evil.example") == 400
