"""How much Redis keeps of a topic, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis.retention import OVERHEAD, Retention
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, topic

MIB = 1 << 20
NODE = 100  # entries in one node of a stream, of which "~" trims whole ones


def retention(**options: Any) -> Retention:
    return Retention(
        **{
            "max_length": 1000,
            "max_octets": 100_000,
            "max_age": 0,
            "expire": 0,
            "lasting": (),
            "max_record": 10_000,
            **options,
        }
    )


@pytest.mark.parametrize(("size", "length"), [(0, 1000), (36, 1000), (936, 100), (9936, 10), (100_000, 10)])
def test_the_length_follows_the_size_of_the_records_down_to_what_is_always_kept(size: int, length: int) -> None:
    limits = retention()
    for _ in range(1000):
        _, limit = limits.limit("t", size)
    assert limit == (b"MAXLEN", b"~", length)


def test_a_few_large_records_among_small_ones_count_as_what_they_are() -> None:
    limits = retention()
    lengths = []
    for number in range(6400):
        _, (_, _, length) = limits.limit("t", 6400 - OVERHEAD if number % 64 == 0 else 0)
        lengths.append(length)
    mean = (6400 + 63 * OVERHEAD) / 64
    assert 0.5 < sum(lengths[640:]) / len(lengths[640:]) / (100_000 / mean) < 1.5


@pytest.mark.parametrize("once", [False, True])
async def test_a_stream_of_large_records_is_limited_by_octets(redis_engine: Engine, once: bool) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, max_octets=4 * MIB) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name, fat = topic(), b"x" * 60_000
        await publish_all(broker, name, [b"small"] * 500)
        for start in range(0, 400, 20):
            await asyncio.gather(
                *(
                    broker.publish_once(name, fat, f"{start + n}") if once else broker.publish(name, fat)
                    for n in range(20)
                )
            )
        used: Any = await redis.memory_usage(name, samples=0)
        assert used < 6 * MIB
        assert await redis.xlen(name) >= 4 * MIB // (64 << 10)


async def test_a_name_that_nobody_uses_expires_with_its_group_and_one_that_is_read_or_lasts_does_not(
    redis_engine: Engine,
) -> None:
    async with (
        RedisStreamsBroker(
            redis_engine.url, expire=1.0, lasting=["public-for-expiry"], max_age=600, takeover_after=0.2
        ) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        unused, read, worked, founded = topic("unused"), topic("read"), topic("worked"), topic("founded")
        for name in (unused, read, worked, "public-for-expiry"):
            await broker.publish(name, b"1")
        await broker.create_group(founded, "work")
        reader = await broker.subscribe(read, after=BEGINNING)
        member = await broker.join(worked, "work", "me")
        async with asyncio.timeout(20):
            while await redis.exists(unused, founded):  # noqa: ASYNC110 (the server tells nobody)
                await asyncio.sleep(0.05)  # the time itself
        assert await redis.exists(read, worked, "public-for-expiry") == 3
        assert 500_000 < await redis.pttl("public-for-expiry") <= 600_000
        await broker.publish(read, b"2")
        assert await bodies(reader, 2) == [b"1", b"2"]
        await broker.publish(worked, b"work")
        assert await bodies(member, 1) == [b"work"]


async def test_every_key_that_a_broker_writes_expires(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, lasting=["chat-stream"], takeover_after=0.05, tries=1) as broker,
        Redis.from_url(fresh_redis.url) as redis,
    ):
        await broker.publish("chat-stream", b"1")
        await broker.publish_once("topic:{a}", b"1", "key")
        await broker.create_group("queue:{b}", "subscribers")
        member = await broker.join("queue:{c}", "subscribers", "me")
        await broker.subscribe("topic:{nothing}")
        await broker.announce("room", "kim", "here", 5)
        await broker.publish("queue:{c}", b"poison")
        reading = asyncio.create_task(bodies(member, 3))
        while not await redis.exists("queue:{c}:set-aside:subscribers"):  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.02)
        reading.cancel()
        endless = [key async for key in redis.scan_iter() if await redis.pttl(key) == -1]
        assert endless == []


async def test_with_expire_0_and_max_age_0_no_key_expires(redis_engine: Engine) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, expire=0, max_age=0) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()
        await broker.publish(name, b"1")
        await broker.subscribe(name)
        assert await redis.pttl(name) == -1
