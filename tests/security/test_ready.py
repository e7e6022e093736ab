"""/readyz notices when an engine refuses what a new client needs although open connections still work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.lab.engines import engine as engines
from tests.support.stomp_peer import Peer
from tests.support.wire import get, readyz_is

Make = Callable[[str], Any]
BROKERS = [RedisStreamsBroker, RedisPubSubBroker]


@pytest.fixture
async def redis() -> AsyncIterator[engines.Engine]:
    async with await engines.start("redis", own=True) as engine:
        yield engine


@pytest.mark.parametrize("broker", BROKERS)
async def test_an_instance_is_not_ready_while_redis_is_at_maxclients(redis: engines.Engine, broker: Make) -> None:
    async with broker(redis.url) as engine, await chat_server.start(engine) as server:
        await readyz_is(server, 200)
        async with Peer(server.url) as connected, AsyncExitStack() as others, Redis.from_url(redis.url) as admin:
            await connected.subscribe("/topic/public")
            await admin.config_set("maxclients", 20)
            for _ in range(20):
                _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(redis.url).port)
                others.callback(writer.close)
            assert "reached its limit of clients; raise its `maxclients`" in await readyz_is(server, 503)
            assert "chatlab_ready 0" in (await get(server.port, "/metrics", "Host: 127.0.0.1:PORT")).body
            await connected.say("connected clients still talk")
            assert await connected.contents(1) == ["connected clients still talk"]
        assert (await readyz_is(server, 200)).startswith("ready")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [("maxmemory", "1", "out of memory"), ("min-replicas-to-write", "1", "too few replicas")],
)
async def test_an_instance_is_not_ready_while_redis_refuses_writes(
    redis: engines.Engine, option: str, value: str, reason: str
) -> None:
    async with RedisStreamsBroker(redis.url) as broker, await chat_server.start(broker) as server:
        await readyz_is(server, 200)
        async with Redis.from_url(redis.url) as admin:
            await admin.config_set(option, value)
            assert reason in await readyz_is(server, 503)
            assert broker.connected
            await admin.config_set(option, "0")
        await readyz_is(server, 200)


async def test_an_instance_is_not_ready_while_redis_is_a_replica(redis: engines.Engine) -> None:
    async with RedisStreamsBroker(redis.url) as broker, await chat_server.start(broker) as server:
        async with Redis.from_url(redis.url) as admin:
            await admin.replicaof("127.0.0.1", "1")
            await readyz_is(server, 503, "replica")
            await admin.replicaof("NO", "ONE")
        await readyz_is(server, 200)


async def test_readyz_names_a_missing_redis_permission_and_the_command_that_grants_it(redis: engines.Engine) -> None:
    async with Redis.from_url(redis.url) as admin:
        await admin.acl_setuser(
            "chat", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], categories=["+@all"]
        )
        url = redis.url.replace("redis://", "redis://chat:secret@")
        async with RedisStreamsBroker(url) as broker, await chat_server.start(broker) as server:
            await readyz_is(server, 200)
            await admin.acl_setuser("chat", enabled=True, commands=["-xadd"])
            assert "`ACL SETUSER chat +xadd`" in await readyz_is(server, 503)


async def test_frequent_health_checks_open_few_redis_connections(
    redis: engines.Engine,
) -> None:
    async with (
        RedisStreamsBroker(redis.url) as broker,
        await chat_server.start(broker) as server,
        Redis.from_url(redis.url) as admin,
    ):
        await readyz_is(server, 200)
        before = (await admin.info("stats"))["total_connections_received"]
        for _ in range(10):
            answers = [get(server.port, "/readyz", "Host: 127.0.0.1:PORT") for _ in range(20)]
            assert {answer.status for answer in await asyncio.gather(*answers)} == {200}
        assert (await admin.info("stats"))["total_connections_received"] - before <= 10
        assert (await admin.info("clients"))["connected_clients"] <= 10


async def test_a_change_of_readiness_is_logged_once(redis: engines.Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "chatlab.brokers")
    async with (
        RedisStreamsBroker(redis.url) as broker,
        await chat_server.start(broker) as server,
        Redis.from_url(redis.url) as admin,
    ):
        await admin.config_set("maxmemory", "1")
        for _ in range(3):
            await readyz_is(server, 503)
        await admin.config_set("maxmemory", "0")
        await readyz_is(server, 200)
    assert caplog.text.count("is out of memory") == 1
    assert caplog.text.count("serves new clients again") == 1
