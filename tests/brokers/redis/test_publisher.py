"""Publishing to Redis: joined in pipelines, held back in an outage, never lost in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis import publisher as redis_publisher
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import BrokerUnavailable
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, topic, until

pytestmark = pytest.mark.every_loop


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records left in each pipeline."""
    sizes: list[int] = []
    pipeline = Link.pipeline

    async def watched(self: Link, commands: Sequence[Command], replies: list[Any], *, wait: float = 0) -> None:
        sizes.extend([len(commands)] if commands[0][0] == b"XADD" else [])
        await pipeline(self, commands, replies, wait=wait)

    monkeypatch.setattr(Link, "pipeline", watched)
    return sizes


async def test_publishes_of_one_loop_turn_leave_in_one_pipeline(redis_engine: Engine, pipelines: list[int]) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        name = topic()
        await asyncio.gather(*(broker.publish(name, b"x") for _ in range(300)))
        assert pipelines == [300]


async def test_broken_connections_lose_and_repeat_no_record(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        reading = asyncio.create_task(bodies(await broker.subscribe(name), 3000))
        publishing = asyncio.gather(*(broker.publish_once(name, b"%d" % n, str(n)) for n in range(3000)))
        while not publishing.done():
            await redis.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.05)
        await publishing
        assert sorted(await reading, key=int) == [b"%d" % n for n in range(3000)]
        assert await redis.xlen(name) == 3000


async def test_a_publish_gives_up_after_its_patience(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, patience=0.3) as broker:
        fresh_redis.kill()
        started = time.monotonic()
        for attempt in (broker.publish("t", b"x"), broker.publish_once("t", b"x", "k"), broker.subscribe("t")):
            with pytest.raises(BrokerUnavailable):
                await attempt
        assert time.monotonic() - started < 5


async def test_a_publish_given_up_before_it_was_sent_is_never_sent(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, patience=0.2) as broker:
        fresh_redis.kill()
        with pytest.raises(BrokerUnavailable):
            await broker.publish("t", b"given up")
        await fresh_redis.restart()
        await until(lambda: broker.connected, "the engine is found again")
        await broker.publish("t", b"next")
        assert [each.body for each in await broker.history("t")] == [b"next"]


async def test_publishing_waits_while_the_server_is_a_replica(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        await redis.replicaof("127.0.0.1", "1")  # as in a failover: it refuses writes
        waiting = [asyncio.create_task(broker.publish("t", b"%d" % n)) for n in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        await redis.replicaof("NO", "ONE")
        await asyncio.gather(*waiting)
        assert [each.body for each in await broker.history("t")] == [b"0", b"1", b"2"]


async def test_publishing_to_a_server_without_memory_raises_an_error(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            await broker.publish("t", b"x")
        await redis.config_set("maxmemory", 0)
        await broker.publish("t", b"x")


async def test_a_pipeline_is_bounded_in_records_and_in_octets(redis_engine: Engine, pipelines: list[int]) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        name = topic()
        await asyncio.gather(*(broker.publish(name, b"x") for _ in range(redis_publisher.MAX_COMMANDS + 1)))
        assert pipelines == [redis_publisher.MAX_COMMANDS, 1]
        pipelines.clear()
        await asyncio.gather(*(broker.publish(name, bytes(redis_publisher.MAX_BYTES // 2)) for _ in range(5)))
        assert pipelines == [2, 2, 1]


async def test_records_with_keys_keep_their_order_through_an_outage(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        publishing = asyncio.gather(*(broker.publish_once("t", b"%d" % n, str(n)) for n in range(2000)))
        while not publishing.done():
            await redis.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.02)
        await publishing
        assert [each.body for each in await broker.history("t")] == [b"%d" % n for n in range(2000)]


async def test_each_publish_times_out_at_its_own_deadline(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, patience=0.5) as broker:
        await broker.publish("t", b"answered")
        fresh_redis.kill()
        first = broker.begin_publish("t", b"1", "k1")
        await asyncio.wait([first], timeout=0.25)
        second = broker.begin_publish("t", b"2", "k2")
        await asyncio.wait([first])
        assert not second.done()
        await asyncio.wait([second])
        for future in (first, second):
            with pytest.raises(BrokerUnavailable, match=r"within 0\.5 s"):
                future.result()
