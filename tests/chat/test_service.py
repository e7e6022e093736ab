"""One instance without its sockets: readiness, publishing, draining."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from websockets.exceptions import ConnectionClosed

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.service import ChatOptions, ChatService
from chatlab.errors import BrokerUnavailable
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.broker_cases import stored
from tests.support.paused_broker import PausedBroker
from tests.support.stomp_peer import Peer, chat

SEND = "/app/chat.sendMessage"


@pytest.fixture
async def service(broker: MemoryBroker) -> AsyncIterator[ChatService]:
    service = ChatService(broker)
    yield service
    await service.aclose()


def test_chat_options_are_the_keywords_of_the_service() -> None:
    (_, _, *keywords) = inspect.signature(ChatService.__init__).parameters
    assert list(ChatOptions.__annotations__) == keywords


async def test_a_misspelt_option_is_refused_before_the_broker_is_started() -> None:
    no_server = RedisStreamsBroker("redis://127.0.0.1:1")
    with pytest.raises(TypeError, match=r"unknown option 'heartbeat'; the options are app, .*heart_beat"):
        await chat_server.start(no_server, heartbeat=(0, 0))  # type: ignore[call-arg]  # the type checker refuses it too


async def ready(server: ChatServer) -> tuple[int, str]:
    """Return the answer to a balancer."""
    async with ClientSession() as http, http.get(f"{server.page_url}readyz") as response:
        return response.status, await response.text()


async def test_readyz_tells_a_balancer_why_no_client_should_be_sent_here(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, patience=0.5) as broker:
        server = await chat_server.start(broker, patience=0.1, drain_seconds=5)
        async with Peer(server.url) as peer:
            assert await ready(server) == (200, "ready\n")
            fresh_redis.kill()
            await until(lambda: not broker.connected)
            assert await ready(server) == (503, "the broker does not answer\n")
            await fresh_redis.restart()
            await until(lambda: not server.service.why_not_ready(), timeout=15)
            assert await ready(server) == (200, "ready\n")
            draining = asyncio.create_task(server.service.drain("back soon", 5))
            await peer.websocket.wait_closed()
            assert await ready(server) == (503, "draining: this instance is stopping\n")
            await draining
        await server.aclose()


async def test_an_instance_is_not_ready_while_a_topic_is_not_being_read(service: ChatService) -> None:
    followed = service.relay.follow("cats")
    assert service.why_not_ready() == "topics not being read: 1"
    await followed.ready.wait()
    assert service.why_not_ready() == ""


async def test_a_record_published_twice_with_one_key_is_stored_once(service: ChatService, broker: MemoryBroker) -> None:
    first = await stored(service.publish("cats", b"once", "ann:7f3a"))
    assert await stored(service.publish("cats", b"once", "ann:7f3a")) == first
    assert await stored(service.publish("cats", b"once", "bob:7f3a")) != first
    assert await stored(service.publish("dogs", b"another topic", "ann:7f3a")) == "1-1"
    for _ in range(2):
        await stored(service.publish("cats", b"without a key", None))
    assert [kept.body for kept in await broker.history("cats")] == [b"once"] * 2 + [b"without a key"] * 2


async def test_a_caller_is_told_when_a_record_is_stored_unless_it_is_stored_at_once(service: ChatService) -> None:
    told: list[asyncio.Future[str]] = []
    service.publish("cats", b"x", None, told.append)
    assert (told, service.metrics.published) == ([], 1)
    async with PausedBroker() as broker:
        slow = ChatService(broker)
        publishing = slow.publish("cats", b"x", None, told.append)
        assert (told, slow.metrics.published) == ([], 0)
        broker.storing.set()
        await stored(publishing)
        assert (told, slow.metrics.published) == ([publishing], 1)
        await slow.aclose()


async def test_a_message_sent_again_after_a_lost_receipt_is_not_stored_again_on_any_instance(
    broker: MemoryBroker,
) -> None:
    async with await chat_server.start(broker) as one, await chat_server.start(broker) as other:
        for server in (one, other):
            async with Peer(server.url, "민지", client_key="a secret of this guest") as peer:
                await peer.say("안녕", "cats", client_id="7f3a")
        async with Peer(other.url, "하준") as namesake_of_the_id:
            await namesake_of_the_id.say("안녕", "cats", client_id="7f3a")
    assert len(await broker.history("chat:{cats}")) == 2


async def test_a_record_that_the_broker_does_not_take_raises_and_is_counted(
    service: ChatService, broker: MemoryBroker
) -> None:
    await broker.aclose()
    for key in (None, "k"):
        with pytest.raises(BrokerUnavailable):
            await stored(service.publish("cats", b"x", key))
    await asyncio.sleep(0)  # the service's own callback runs after this one
    assert (service.metrics.published, service.metrics.unavailable) == (0, 2)
    assert service.why_not_ready() == "the broker does not answer"


async def test_drain_closes_a_client_only_after_the_receipts_for_all_it_sent() -> None:
    async with PausedBroker() as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        for number in range(3):
            await peer.send("SEND", chat(str(number)), destination=SEND, receipt=str(number))
        (connection,) = server.service.connections
        await until(lambda: broker.asked == 3)
        draining = asyncio.create_task(server.service.drain("back soon", 10))
        await until(lambda: server.service.draining)
        assert connection in server.service.connections, "no client is closed before the broker has answered"
        broker.storing.set()
        assert [(await peer.frame("RECEIPT")).get("receipt-id") for _ in range(3)] == ["0", "1", "2"]
        assert await peer.close_code() == 1001
        assert peer.websocket.close_reason == "back soon"
        await draining


async def test_drain_waits_for_an_unresponsive_broker_only_until_its_time_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        PausedBroker() as broker,
        await chat_server.start(broker, drain_seconds=0.2) as server,
        Peer(server.url) as peer,
    ):
        await peer.send("SEND", chat("x"), destination=SEND, receipt="r")
        await until(lambda: broker.asked == 1)
        async with asyncio.timeout(5):
            await server.service.drain("back soon", 0.2)
        assert await peer.close_code() == 1001
        with pytest.raises(ConnectionClosed):  # no receipt: the broker does not have the message
            await peer.frame("RECEIPT")
    assert "messages were still on their way to the broker after 0.2 s" in caplog.text
