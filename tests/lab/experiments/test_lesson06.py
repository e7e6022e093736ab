"""Lesson 06's experiments: the server names every mistake, and serves clients from other projects."""

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
        ("sends before CONNECT", "the first frame must be CONNECT"),
        ("a version that does not exist", "no common version"),
        ("no destination", "without the header 'destination'"),
        ("no such command", "'SHOUT' is not a command"),
        ("no such escape", "undefined escape sequence"),
        ("another user's queue", "access refused: "),
    ],
)
async def test_the_server_names_a_mistake(server: chat.ChatServer, mistake: str, words: str) -> None:
    assert words in await error_for(server.url, MISTAKES[mistake])


async def test_frames_without_a_mistake_get_no_error(server: chat.ChatServer) -> None:
    assert await error_for(server.url, [CONNECT, "DISCONNECT\n\n\0"]) == "no ERROR came"


async def test_frames_are_exchanged_over_plain_http(server: chat.ChatServer) -> None:
    frames = [CONNECT, "SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0", "SEND\ndestination:/topic/a\n\n안녕\0"]
    connected, message = await over_plain_http(server.url, frames)
    assert connected.startswith("CONNECTED\n")
    assert message.endswith("\n\n안녕\0")


async def test_stomp_py_receives_what_it_sent(server: chat.ChatServer) -> None:
    assert await with_stomp_py(server.url, "/topic/a", "안녕 👋") == "안녕 👋"
