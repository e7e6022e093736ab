"""Redis fails and recovers, and instances stop: nothing is lost, no receipt is false, no client waits forever."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.errors import BrokerUnavailable
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.stomp_peer import Peer, chat

SEND = "/app/chat.sendMessage"


@pytest.fixture
async def on_redis(fresh_redis: Engine) -> AsyncIterator[ChatServer]:
    async with RedisStreamsBroker(fresh_redis.url) as broker, await chat_server.start(broker) as server:
        yield server


async def status(server: ChatServer, path: str) -> int:
    async with ClientSession() as http, http.get(server.page_url + path) as response:
        return response.status


async def test_a_receipt_waits_until_redis_has_the_record(on_redis: ChatServer, fresh_redis: Engine) -> None:
    async with Peer(on_redis.url) as peer:
        await peer.subscribe("/topic/public")
        await peer.say("before")
        fresh_redis.kill()
        await until(lambda: not on_redis.service.broker.connected)
        for number in range(3):
            await peer.send("SEND", chat(str(number)), destination=SEND, receipt=f"held {number}")
        with pytest.raises(TimeoutError):
            await peer.frame("RECEIPT", 0.3)
        assert (await status(on_redis, "healthz"), await status(on_redis, "readyz")) == (200, 503)
        await fresh_redis.restart()
        assert [(await peer.frame("RECEIPT", 15)).get("receipt-id") for _ in range(3)] == ["held 0", "held 1", "held 2"]
        assert await peer.contents(4) == ["before", "0", "1", "2"]
        await peer.nothing_more()
        await until(lambda: not on_redis.service.why_not_ready())


async def test_a_publish_that_times_out_is_reported_and_gets_no_receipt(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, patience=0.5) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url) as peer,
    ):
        await peer.subscribe("/user/queue/errors", id="errors")
        fresh_redis.kill()
        await peer.send("SEND", chat("x"), destination=SEND, receipt="r")
        error = await peer.frame()
        assert (error.command, error.get("subscription"), error.get("receipt-id")) == ("MESSAGE", "errors", "r")
        assert json.loads(error.body)["error"].startswith("refused: ")  # it was never sent
        await fresh_redis.restart()
        await until(lambda: broker.connected, timeout=15)
        await peer.say("later")


async def test_a_message_that_may_still_arrive_is_not_reported_as_refused(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, patience=1) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url, "ann") as peer,
    ):
        await peer.subscribe("/user/queue/errors", id="errors")
        assert fresh_redis.pid is not None
        os.kill(fresh_redis.pid, signal.SIGSTOP)
        try:
            for number in range(3):
                body = chat(f"during {number}", client_id=f"id {number}")
                await peer.send("SEND", body, destination=SEND, receipt=f"r{number}")
            reports = [json.loads((await peer.frame("MESSAGE")).body) for _ in range(3)]
        finally:
            os.kill(fresh_redis.pid, signal.SIGCONT)
        first = next(each["error"] for each in reports if each["receipt"] == "r0")
        assert first == (
            "not confirmed: the broker did not confirm the message within 1 s; it may still be delivered; "
            "send it again with the same client_id"
        )
        for number in range(3):  # whatever happened to the first attempt
            await peer.say(f"during {number}", client_id=f"id {number}")
        # Only now: who enters a room is announced on the same connection, and the first SEND would wait for that.
        await peer.subscribe("/topic/public", id="public", **{"last-id": "0-0"})
        assert sorted(await peer.contents(3)) == ["during 0", "during 1", "during 2"]
        await peer.nothing_more()


async def test_a_subscription_made_during_an_outage_starts_afterwards(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, patience=0.5) as broker,
        await chat_server.start(broker, patience=0.5) as server,
        Peer(server.url) as peer,
    ):
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.say("kept", "cats")
        fresh_redis.kill()
        await peer.send("SUBSCRIBE", id="cats", destination="/topic/room.cats", last_id="0-0", receipt="r")
        error = await peer.frame("MESSAGE")
        assert error.get("receipt-id") == "r"
        await fresh_redis.restart()
        assert json.loads((await peer.frame("MESSAGE", 20)).body)["content"] == "kept"
        await until(lambda: not server.service.why_not_ready(), timeout=15)
        await peer.say("live", "cats")
        assert await peer.contents(1) == ["live"]


async def test_a_client_that_waits_for_the_broker_is_not_dropped_as_dead(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, patience=5) as broker,
        await chat_server.start(broker, heart_beat=(0, 100), patience=5) as server,
        Peer(server.url, **{"heart-beat": "100,0"}) as peer,
    ):
        fresh_redis.kill()
        await until(lambda: not broker.connected)
        await peer.send("SUBSCRIBE", id="cats", destination="/topic/room.cats", receipt="r")
        for _ in range(10):  # its heart-beats are not read
            await peer.websocket.send("\n")
            await asyncio.sleep(0.1)
        await fresh_redis.restart()
        assert (await peer.frame("RECEIPT", 15)).get("receipt-id") == "r"


async def test_start_raises_if_the_broker_cannot_be_reached() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        await chat_server.start(RedisStreamsBroker("redis://127.0.0.1:1"))


async def test_start_raises_if_the_port_is_taken_and_leaves_the_broker_usable(server: ChatServer) -> None:
    broker = server.service.broker
    with pytest.raises(OSError) as taken:
        await chat_server.start(broker, port=server.port)
    assert taken.value.errno == errno.EADDRINUSE
    await broker.publish("t", b"x")


@pytest.mark.long
async def test_a_closing_server_waits_for_the_broker_before_it_closes_clients(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker:
        server = await chat_server.start(broker)
        async with Peer(server.url) as peer:
            for number in range(50):
                await peer.send("SEND", chat(str(number)), destination=SEND, receipt=str(number))
            await peer.frame("RECEIPT")
            await server.aclose()
            got = 1
            while got < 50 and (await peer.frame()).command == "RECEIPT":
                got += 1
            assert await peer.close_code() == 1001
        assert len(await broker.history("chat-stream")) == got == 50


async def test_a_draining_server_is_not_ready_and_accepts_no_client(broker: MemoryBroker) -> None:
    server = await chat_server.start(broker)
    server.service.draining = True
    assert await status(server, "readyz") == 503
    for path in ("ws/1/2/xhr",):
        async with ClientSession() as http, http.post(server.page_url + path) as response:
            assert response.status == 503
    await server.aclose()


async def test_a_client_that_does_not_answer_the_close_does_not_hold_up_the_stop(broker: MemoryBroker) -> None:
    server = await chat_server.start(broker, drain_seconds=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        await server.aclose()
    assert (await reader.read()).startswith(b"\x88"), "a Close frame, then end of stream"
    writer.close()
