"""Groups on Redis Streams: taking over, poison, and what happens to work whose stream or server goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis import group_reader as redis_group_reader
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, topic


async def test_a_record_that_always_fails_is_set_aside(redis_engine: Engine) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, takeover_after=0.1, tries=3) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()
        member = await broker.join(name, "audit", "a")
        poison = await broker.publish(name, b"poison")
        assert await bodies(member, 3) == [b"poison"] * 3
        reading = asyncio.create_task(read(member, 1))
        found: Any = await redis.xread({f"{name}:set-aside:audit": "0"}, block=10_000)
        ((_, aside),) = found[0][1]
        await broker.publish(name, b"good")
        (record,) = await reading
        assert record.body == b"good"
        await member.ack(record)
        assert aside == {b"body": b"poison", b"id": poison.encode(), b"tried": b"3"}
        assert (await redis.xpending(name, "audit"))["pending"] == 0


async def test_a_returning_member_gets_its_unacknowledged_records_at_once(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url, takeover_after=60) as broker:
        name = topic()
        first_life = await broker.join(name, "audit", "a")
        await publish_all(broker, name, [b"1", b"2"], at_once=1)
        records = await read(first_life, 2)
        await first_life.ack(records[0])
        await first_life.aclose()
        second_life = await broker.join(name, "audit", "a")
        await broker.publish(name, b"3")
        assert await bodies(second_life, 2) == [b"2", b"3"]


async def test_a_group_whose_stream_was_deleted_is_recreated_and_logged(
    redis_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, takeover_after=0.2) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()
        member = await broker.join(name, "audit", "a")
        reading = asyncio.create_task(bodies(member, 1))
        await asyncio.sleep(0.05)
        await redis.delete(name)
        await broker.publish(name, b"x")
        assert await reading == [b"x"]
        assert f"{name} was deleted, with the unread records of group audit" in caplog.text


async def test_records_trimmed_before_their_work_was_done_are_acknowledged(redis_engine: Engine) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, takeover_after=0.1) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()
        first = await broker.join(name, "audit", "a")
        await broker.publish(name, b"trimmed")
        await read(first, 1)
        await first.aclose()
        await redis.xtrim(name, maxlen=0, approximate=False)
        second = await broker.join(name, "audit", "a")
        await broker.publish(name, b"next")
        (record,) = await read(second, 1)
        assert record.body == b"next"
        await second.ack(record)
        assert (await redis.xpending(name, "audit"))["pending"] == 0


async def test_the_number_of_records_trimmed_unread_is_logged(
    redis_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        await (await broker.join(name, "audit", "a")).aclose()
        await publish_all(broker, name, [b"%d" % number for number in range(10)])
        await redis.xtrim(name, maxlen=3, approximate=False)
        member = await broker.join(name, "audit", "b")
        assert await bodies(member, 3) == [b"7", b"8", b"9"]
        assert f"7 records of {name} were trimmed before group audit read them" in caplog.text


async def test_a_group_that_read_all_trimmed_records_has_lost_nothing(
    redis_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        member = await broker.join(name, "audit", "a")
        await publish_all(broker, name, [b"%d" % number for number in range(10)])
        for record in await read(member, 10):
            await member.ack(record)
        await redis.xtrim(name, maxlen=0, approximate=False)
        await member.aclose()
        other = await broker.join(name, "audit", "b")
        await broker.publish(name, b"new")
        assert await bodies(other, 1) == [b"new"]
        assert "trimmed" not in caplog.text


async def test_a_group_outlives_a_kill_of_the_engine(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, takeover_after=0.2) as broker:
        member = await broker.join("t", "audit", "a")
        await publish_all(broker, "t", [b"1", b"2"], at_once=1)
        one, two = await read(member, 2)
        fresh_redis.kill()
        acknowledging = asyncio.create_task(member.ack(one))  # held until the engine is back
        await fresh_redis.restart()
        await acknowledging
        again = await read(member, 1)
        assert again == [two]
        await member.ack(two)
        await broker.publish("t", b"3")
        assert await bodies(member, 1) == [b"3"]


async def test_a_member_holds_no_more_than_it_has_handed_out(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        name = topic()
        idle, busy = await broker.join(name, "audit", "idle"), await broker.join(name, "audit", "busy")
        reading = asyncio.create_task(idle.batch(1))  # it takes some, and then looks at the first for ever
        await publish_all(broker, name, [b"%d" % n for n in range(200)])
        await reading
        assert len(await read(busy, 200 - redis_group_reader.COUNT)) == 200 - redis_group_reader.COUNT


async def test_a_dead_member_is_removed_once_another_has_done_its_work(
    redis_engine: Engine,
) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, takeover_after=0.1) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()

        async def come_to(members: list[bytes]) -> None:
            async with asyncio.timeout(10):
                while [each["name"] for each in await redis.xinfo_consumers(name, "audit")] != members:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        idle, busy = await broker.join(name, "audit", "idle"), await broker.join(name, "audit", "busy")
        idling = asyncio.create_task(read(idle, 1))
        await come_to([b"idle"])
        idling.cancel()
        await asyncio.gather(idling, return_exceptions=True)
        await idle.aclose()
        await broker.publish(name, b"begun")
        await read(busy, 1)
        await busy.aclose()
        staying = await broker.join(name, "audit", "staying")
        (record,) = await read(staying, 1)
        assert record.body == b"begun", "forgetting a member must not forget what it had taken"
        await staying.ack(record)
        reading = asyncio.create_task(read(staying, 1))
        await come_to([b"staying"])
        await broker.publish(name, b"next")
        assert [each.body for each in await reading] == [b"next"]
