"""The one blocking read of a broker: it serves every topic, starves nobody, and looks for losses only where needed."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis import streams as redis_streams
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import BrokerError
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, topic

pytestmark = pytest.mark.every_loop


async def test_one_blocking_read_serves_all_topics(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        before = await blocked_in_xread(redis)
        names = [topic() for _ in range(40)]
        reading = [asyncio.create_task(bodies(await broker.subscribe(name), 1)) for name in names]
        await asyncio.sleep(0)
        await asyncio.gather(*(broker.publish(name, name.encode()) for name in names))
        assert await asyncio.gather(*reading) == [[name.encode()] for name in names]
        assert await blocked_in_xread(redis) <= before


async def blocked_in_xread(redis: Redis) -> int:
    """How many connections wait in XREAD. The reader of a broker without topics waits there too."""
    await asyncio.sleep(0.05)
    return sum(client["cmd"] == "xread" for client in await redis.client_list())


async def test_a_new_topic_does_not_wait_for_the_current_blocking_read(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        quiet = asyncio.create_task((await broker.subscribe(topic())).batch())
        slowest = 0.0
        for _ in range(20):
            name = topic()
            reading = asyncio.create_task((await broker.subscribe(name)).batch())
            await asyncio.sleep(0.002)  # it may or may not be in the blocking read by now
            started = time.perf_counter()
            await broker.publish(name, b"x")
            await reading
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < redis_streams.BLOCK / 2
        quiet.cancel()


async def test_blocking_reads_do_not_delay_other_commands(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        names = [topic() for _ in range(30)]
        waiting = [asyncio.create_task((await broker.subscribe(name)).batch()) for name in names]
        members = [await broker.join(name, "g", "m") for name in names[:10]]
        waiting += [asyncio.create_task(member.batch()) for member in members]
        await asyncio.sleep(0)
        started = time.perf_counter()
        await asyncio.gather(*(broker.history(name) for name in names for _ in range(10)))
        assert time.perf_counter() - started < redis_streams.BLOCK
        for task in waiting:
            task.cancel()


async def test_a_topic_whose_key_changes_its_type_does_not_end_other_topics(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        bad, good = topic(), topic()
        spoilt, served = await broker.subscribe(bad), await broker.subscribe(good)
        reading = asyncio.create_task(spoilt.batch())
        following = asyncio.create_task(bodies(served, 20))
        await broker.publish(good, b"0")
        await redis.set(bad, "a string")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await reading
        for number in range(1, 20):
            await broker.publish(good, b"%d" % number)
        assert await following == [b"%d" % number for number in range(20)]


async def test_a_busy_stream_is_not_checked_for_each_message(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        following = asyncio.create_task(bodies(await broker.subscribe(name), 1000))
        before = await calls(redis, "cmdstat_xinfo|stream")
        for number in range(1000):
            await broker.publish(name, b"%d" % number)
        await following
        assert await calls(redis, "cmdstat_xinfo|stream") - before < 100


async def calls(redis: Redis, command: str) -> int:
    """How often the server has run a command."""
    return int((await redis.info("commandstats")).get(command, {"calls": 0})["calls"])
