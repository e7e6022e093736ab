"""The public SockJS client in Node: on every transport, and behind a balancer with two instances."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from tests.support import node

SCRIPT = Path(__file__).with_name("sockjs_client.cjs")
TRANSPORTS = ("websocket", "xhr-streaming", "xhr-polling", "eventsource")
CONTENTS = ["안녕 🙂", "\u2028 and \0 and \ufffe", "x" * 40000, "last"]


@pytest.fixture(scope="module")
def modules() -> Path:
    return node.packages()


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with await chat_server.start(MemoryBroker(), heart_beat=(200, 200)) as server:
        yield server


async def check_conversation(script: node.Script, transport: str) -> None:
    assert await script.line() == {"transport": transport}
    assert [json.loads(json.dumps(await script.line())) for _ in CONTENTS] == [{"content": each} for each in CONTENTS]
    assert await script.line() == {"disconnected": True}
    assert set(await script.line()) == {"closed"}
    assert await script.ended() == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_sockjs_client_chats_on_each_transport(modules: Path, server: ChatServer, transport: str) -> None:
    async with node.running(modules, SCRIPT, server.page_url + "ws", transport) as script:
        await check_conversation(script, transport)
    assert not server.service.connections


@pytest.mark.long
@pytest.mark.parametrize("transport", ["xhr-streaming", "xhr-polling"])
async def test_a_balancer_routes_sockjs_requests_by_the_session_in_the_path(
    modules: Path, fresh_redis: Engine, transport: str
) -> None:
    async with Cluster(fresh_redis.url, instances=2) as cluster:
        balancer = await cluster.balance()
        url = balancer.url.replace("ws:", "http:").removesuffix("/ws") + "/ws"
        for _ in range(3):
            async with node.running(modules, SCRIPT, url, transport) as script:
                await check_conversation(script, transport)
