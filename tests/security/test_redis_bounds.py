"""What one guest can make of a Redis: a bounded number of connections, and keys that end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis_streams import RedisStreamsBroker
from chatlab.chat import server as chat_server
from chatlab.chat.server import ChatServer
from chatlab.lab.engines import Engine
from tests.support import redis_servers
from tests.support.stomp_peer import Peer

pytestmark = pytest.mark.parametrize("name", redis_servers.NAMES)
QUEUES = 250
POOL = 8  # connections for questions, opened when they are needed


@asynccontextmanager
async def engine_and_redis(name: str) -> AsyncIterator[tuple[Engine, Any]]:
    async with await redis_servers.start(name) as engine, Redis.from_url(engine.url) as redis:
        yield engine, redis


@asynccontextmanager
async def chat_at(url: str, **options: Any) -> AsyncIterator[ChatServer]:
    async with RedisStreamsBroker(url, **options) as broker, await chat_server.start(broker) as server:
        yield server


async def join_queues(peer: Peer, prefix: str, count: int = QUEUES) -> None:
    """Subscribe to so many queues, and know that all have begun."""
    for number in range(count):
        await peer.send("SUBSCRIBE", id=f"{number}", destination=f"/queue/{prefix}.{number}", receipt=f"q{number}")
    for _ in range(count):
        await peer.frame("RECEIPT")


async def test_250_queues_of_one_guest_leave_the_number_of_connections_where_it_was(name: str) -> None:
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


async def test_a_guest_with_many_queues_does_not_use_up_the_connections_of_the_server(name: str) -> None:
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


async def test_what_is_left_in_a_queue_by_a_guest_who_leaves_goes_to_another_at_once(name: str) -> None:
    """The read that all share forgets a queue that nobody on this instance reads any more."""
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


async def test_one_queue_whose_stream_is_no_stream_does_not_stop_the_others(name: str) -> None:
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
