"""Lesson 06's experiments: every mistake is named, and strangers' clients are served."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat
from chatlab.lab.experiments.lesson06 import CONNECT, MISTAKES, error_for, over_plain_http, with_stomp_py


@pytest_asyncio.fixture
async def server() -> AsyncIterator[chat.ChatServer]:
    async with MemoryBroker() as broker, await chat.start(broker) as server:
        yield server


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("speaks before CONNECT", "the first frame must be CONNECT"),
        ("a version nobody has", "no common version"),
        ("no destination", "without the header 'destination'"),
        ("no such command", "'SHOUT' is not a command"),
        ("no such escape", "undefined escape sequence"),
        ("somebody else's letters", "access refused: "),
    ],
)
async def test_a_mistake_is_named(server: chat.ChatServer, mistake: str, words: str) -> None:
    assert words in await error_for(server.url, MISTAKES[mistake])


async def test_no_mistake_no_error(server: chat.ChatServer) -> None:
    assert await error_for(server.url, [CONNECT, "DISCONNECT\n\n\0"]) == "no ERROR came"


async def test_frames_go_over_plain_http(server: chat.ChatServer) -> None:
    frames = [CONNECT, "SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0", "SEND\ndestination:/topic/a\n\n안녕\0"]
    connected, message = await over_plain_http(server.url, frames)
    assert connected.startswith("CONNECTED\n")
    assert message.endswith("\n\n안녕\0")


async def test_stomp_py_is_shown_what_it_sent(server: chat.ChatServer) -> None:
    assert await with_stomp_py(server.url, "/topic/a", "안녕 👋") == "안녕 👋"
