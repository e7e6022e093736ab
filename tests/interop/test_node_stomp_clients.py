"""Public JavaScript clients in Node with a real chat server: @stomp/stompjs 7, stompjs 2.3, webstomp-client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from tests.support import node

SCRIPT = Path(__file__).with_name("stomp_clients.cjs")
# Each library with the version it negotiates. stompjs 2.3 is older than STOMP 1.2. webstomp-client uses the version of
# the subprotocol, the first in the client's order: 1.0 with the order that it offers by default.
LIBRARIES = {"stompjs7": "1.2", "stompjs2": "1.1", "webstomp": "1.0", "webstomp12": "1.2"}
SINCE_1_1 = ["stompjs7", "stompjs2", "webstomp12"]


@pytest.fixture(scope="module")
def modules() -> Path:
    return node.packages()


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with await chat_server.start(MemoryBroker(), heart_beat=(200, 200)) as server:
        yield server


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_client_connects_subscribes_sends_and_disconnects(
    modules: Path, server: ChatServer, library: str
) -> None:
    async with node.running(modules, SCRIPT, library, "talk", server.url) as script:
        assert await script.line() == {"version": LIBRARIES[library], "user": True}
        assert await script.line() == {
            "content": "안녕 🙂: a\\b",
            "destination": "/topic/public",
            "message-id": True,
        }
        assert await script.line() in ({"closed": 1000}, {"closed": 1005})  # 1005: the client closed without a code
        assert await script.ended() == 0


@pytest.mark.parametrize("library", ["stompjs7"])  # the other two do not escape headers
async def test_headers_arrive_as_they_were_sent(modules: Path, server: ChatServer, library: str) -> None:
    async with node.running(modules, SCRIPT, library, "headers", server.url) as script:
        assert await script.line() == {"mine": "a:b\\d", "body": "x"}


@pytest.mark.parametrize("library", SINCE_1_1)
async def test_a_nacked_message_is_redelivered(modules: Path, server: ChatServer, library: str) -> None:
    async with node.running(modules, SCRIPT, library, "acks", server.url, f"/queue/{library}") as script:
        assert await script.line() == {"body": "1", "redelivered": False}
        assert await script.line() == {"body": "2", "redelivered": False}
        assert await script.line() == {"body": "2", "redelivered": True}


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_refusal_is_an_error_with_the_reason_followed_by_a_close(
    modules: Path, server: ChatServer, library: str
) -> None:
    async with node.running(modules, SCRIPT, library, "error", server.url) as script:
        assert await script.line() == {"message": "selectors are not supported", "receipt-id": "never"}
        assert "closed" in await script.line()


@pytest.mark.parametrize("library", SINCE_1_1)
async def test_heart_beats_are_sent_in_both_directions(modules: Path, server: ChatServer, library: str) -> None:
    async with node.running(modules, SCRIPT, library, "beats", server.url) as script:
        assert await script.line() == {"beats": True}
        assert await script.ended() == 0


async def test_a_client_reconnects_after_losing_its_connection(modules: Path, server: ChatServer) -> None:
    async with node.running(modules, SCRIPT, "stompjs7", "reconnect", server.url) as script:
        assert await script.line() == {"connected": 1}
        for connection in list(server.service.connections):
            assert isinstance(connection, StompConnection)
            connection.transport.sink.abort()
        assert await script.line() == {"connected": 2}
        assert await script.line() == {"content": "back"}
