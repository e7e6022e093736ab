"""One guest can cause only a bounded number of Redis connections and keys, and the keys expire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session import connection
from chatlab.lab.engines.engine import Engine
from tests.support import redis_servers
from tests.support.stomp_peer import Peer

pytestmark = pytest.mark.parametrize("name", redis_servers.NAMES)
QUEUES = 250
POOL = 8  # connections for queries, opened on demand


@asynccontextmanager
async def engine_and_redis(name: str) -> AsyncIterator[tuple[Engine, Any]]:
    async with await redis_servers.start(name) as engine, Redis.from_url(engine.url) as redis:
        yield engine, redis


@asynccontextmanager
async def chat_at(url: str, **options: Any) -> AsyncIterator[ChatServer]:
    async with RedisStreamsBroker(url, **options) as broker, await chat_server.start(broker) as server:
        yield server


async def join_queues(peer: Peer, prefix: str, count: int = QUEUES) -> None:
    """Subscribe to `count` queues, and wait for every RECEIPT."""
    for number in range(count):
        await peer.send("SUBSCRIBE", id=f"{number}", destination=f"/queue/{prefix}.{number}", receipt=f"q{number}")
    for _ in range(count):
        await peer.frame("RECEIPT")


async def test_250_queues_of_one_guest_need_no_additional_connections(name: str) -> None:
    async with (
        engine_and_redis(name) as (engine, redis),
        chat_at(engine.url) as server,
        Peer(server.url) as guest,
        Peer(server.url) as other,
    ):
        await join_queues(other, "mine", 1)
        before = len(await redis.client_list())
        await join_queues(guest, "made-up")
        assert len(await redis.client_list()) <= before + POOL
        for number in (0, 100, QUEUES - 1):
            await other.send("SEND", f"{number}", destination=f"/queue/made-up.{number}")
            assert (await guest.frame("MESSAGE")).body == b"%d" % number
        await other.send("SEND", "still served", destination="/queue/mine.0")
        assert (await other.frame("MESSAGE")).body == b"still served"


async def test_a_guest_with_many_queues_does_not_use_up_the_servers_connections(name: str) -> None:
    async with (
        engine_and_redis(name) as (engine, redis),
        chat_at(engine.url) as server,
        chat_at(engine.url) as second,
    ):
        await redis.config_set("maxclients", 60)
        async with Peer(server.url) as guest, Peer(second.url) as ana:
            await join_queues(guest, "made-up")
            await ana.subscribe("/queue/jobs", "jobs")
            await ana.subscribe("/topic/public", "public")
            async with chat_at(engine.url) as third, Peer(third.url) as bob:
                await bob.subscribe("/queue/jobs", "jobs")


async def test_a_message_in_a_queue_goes_to_another_consumer_as_soon_as_a_guest_leaves(name: str) -> None:
    """Check that the shared read drops a queue once nobody on this instance reads it."""
    async with (
        engine_and_redis(name) as (engine, _),
        chat_at(engine.url) as server,
        chat_at(engine.url) as second,
        Peer(server.url) as keeper,
        Peer(second.url) as sender,
    ):
        await join_queues(keeper, "other", 20)
        for round in range(20):
            async with Peer(server.url) as guest:
                await guest.subscribe("/queue/work", "work")
                await guest.receipt("UNSUBSCRIBE", id="work")
            await sender.receipt("SEND", f"{round}", destination="/queue/work")
            await sender.subscribe("/queue/work", "work")
            assert (await sender.frame("MESSAGE", 5)).body == b"%d" % round
            await sender.receipt("UNSUBSCRIBE", id="work")


async def test_a_queue_whose_key_is_not_a_stream_does_not_stop_the_others(name: str) -> None:
    async with (
        engine_and_redis(name) as (engine, redis),
        chat_at(engine.url) as server,
        Peer(server.url) as guest,
    ):
        await join_queues(guest, "q", 3)
        await redis.delete("queue:{q.1}")
        await redis.set("queue:{q.1}", "no stream")
        for number in (0, 2):
            await guest.send("SEND", f"{number}", destination=f"/queue/q.{number}")
            assert (await guest.frame("MESSAGE")).body == b"%d" % number


async def endless(redis: Any) -> list[bytes]:
    """Return the keys that never expire."""
    return [key async for key in redis.scan_iter(count=1000) if await redis.ttl(key) == -1]


async def test_rooms_topics_and_queues_made_up_by_a_guest_expire_and_the_public_room_does_not(name: str) -> None:
    async with (
        engine_and_redis(name) as (engine, redis),
        chat_at(engine.url, lasting=["chat-stream"]) as server,
        Peer(server.url, "mia") as guest,
    ):
        await guest.say("hello")
        for number in range(150):
            body = json.dumps({"content": "x", "room": f"r{number}", "client_id": f"{number}"})
            await guest.send("SEND", body, destination="/app/chat.sendMessage")
            await guest.send("SEND", "x", destination=f"/topic/t{number}")
            await guest.send("SEND", "x", destination=f"/queue/q{number}", receipt=f"{number}")
        for _ in range(150):
            await guest.frame("RECEIPT")
        async with asyncio.timeout(10):
            while await endless(redis):  # noqa: ASYNC110 - a key gets its time to live just after its first record
                await asyncio.sleep(0.05)
        assert await redis.dbsize() > 450
        assert await redis.ttl("chat:{r7}") <= 86_400 < await redis.ttl("chat-stream")


async def test_large_messages_of_one_guest_take_no_more_memory_than_a_topic_may_keep(name: str) -> None:
    async with (
        engine_and_redis(name) as (engine, redis),
        chat_at(engine.url, max_octets=4 << 20) as server,
        Peer(server.url) as guest,
    ):
        for _ in range(20):
            for _ in range(20):
                await guest.send("SEND", "y" * 60_000, destination="/topic/large")
            await guest.receipt("SEND", "y", destination="/topic/large")
        assert await redis.memory_usage("topic:{large}", samples=0) < 6 << 20


async def test_messages_that_a_redis_does_not_confirm_take_bounded_memory_and_are_all_stored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ALL_SENDING_OCTETS", 4 << 20)
    async with engine_and_redis(name) as (engine, redis), chat_at(engine.url) as server, AsyncExitStack() as stack:
        floods = [await stack.enter_async_context(Peer(server.url, f"mallory{number}")) for number in range(8)]
        await redis.execute_command("CLIENT", "PAUSE", 2000, "WRITE")

        async def flood(peer: Peer) -> None:
            for _ in range(60):
                await peer.send("SEND", "x" * 60_000, destination="/topic/large", receipt="r")

        sending = [asyncio.create_task(flood(peer)) for peer in floods]
        most = 0
        for _ in range(15):
            await asyncio.sleep(0.1)
            most = max(most, server.service.sending_octets)
        assert 4 << 20 <= most < (4 << 20) + 8 * 70_000
        for peer in floods:
            for _ in range(60):
                await peer.frame("RECEIPT")
        await asyncio.gather(*sending)
        assert server.service.sending_octets == 0
        assert await redis.xlen("topic:{large}") == 8 * 60
