"""The one blocking read of a broker: it serves every topic, starves nobody, and looks for losses only where needed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis import streams as redis_streams
from chatlab.brokers.redis.connections.link import Link
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


@pytest.mark.parametrize("topics", [1, 8])
async def test_large_records_written_at_once_come_in_replies_of_bounded_size(
    redis_engine: Engine, topics: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else bounds them: XREAD's COUNT is in records, of each stream."""
    octets: list[int] = []
    pipeline = Link.pipeline

    async def measured(self: Link, commands: Any, replies: list[Any], *, wait: float = 0) -> None:
        await pipeline(self, commands, replies, wait=wait)
        octets.append(octets_in(replies))

    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        names = [topic() for _ in range(topics)]
        readers = [await broker.subscribe(name) for name in names]
        reading = [asyncio.create_task(bodies(reader, 513)) for reader in readers]
        await asyncio.gather(*(broker.publish(name, b"first") for name in names))
        await asyncio.sleep(0.1)  # all of them follow now
        monkeypatch.setattr(Link, "pipeline", measured)
        expected = [b"%d " % number + b"x" * LARGE for number in range(512)]
        async with redis.pipeline(transaction=True) as transaction:  # so that one read could return all of it
            for body in expected:
                for name in names:
                    transaction.xadd(name, {"body": body})
            await transaction.execute()
        assert await asyncio.gather(*reading) == [[b"first", *expected]] * topics
    assert max(octets) < (20 << 20)
    assert len(octets) < 150


LARGE = 60_000 // 4  # octets: 8 topics of 512 records then fit into a test


def octets_in(reply: Any) -> int:
    """How many octets of strings a reply holds."""
    if isinstance(reply, bytes):
        return len(reply)
    if isinstance(reply, dict):
        return sum(map(octets_in, reply.values()))
    return sum(map(octets_in, reply)) if isinstance(reply, list) else 0


async def test_a_reader_that_does_not_read_leaves_large_records_in_the_stream(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        name = topic()
        reader = await broker.subscribe(name)
        await broker.publish(name, b"first")
        assert [record.body for record in await reader.batch()] == [b"first"]
        reading = asyncio.create_task(reader.batch(1))
        await asyncio.sleep(0.1)  # it follows now
        expected = [b"%d " % number + b"x" * LARGE for number in range(2000)]
        for body in expected:
            await broker.publish(name, body)
        received = [record.body for record in await reading]
        assert sum(len(record.body) for record in reader._waiting) < redis_streams.MAX_WAITING_OCTETS + (6 << 20)
        assert received + await bodies(reader, 2000 - len(received)) == expected
