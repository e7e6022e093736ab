"""Support of the checks of lessons 04 and 05: unique names, connections that break on demand, a watched broker."""

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.lab.exercises.support.redis import Moment, Taps, break_off, client, fresh, watched_broker
from chatlab.lab.runtime import lab
from chatlab.lab.until import until

pytestmark = pytest.mark.usefixtures("each_redis")


async def test_only_keys_under_a_fresh_name_are_deleted() -> None:
    async with Redis.from_url(await lab.redis()) as redis:
        await redis.set("another key", "stays")
        async with fresh("topic") as topic, fresh("topic") as other:
            assert topic != other
            await redis.set(topic, "1")
            await redis.set(f"{{{topic}}}:once:key", "2")
        assert await redis.keys(f"*{topic}*") == []
        assert await redis.get("another key") == b"stays"
        await redis.delete("another key")


async def test_an_exchange_is_one_command_or_one_pipeline() -> None:
    taps = Taps()
    async with fresh("key") as key, client(taps) as redis:
        assert taps.exchanges == 0
        await redis.set(key, "안녕")
        assert (await redis.get(key), taps.exchanges) == ("안녕", 2)
        async with redis.pipeline() as pipeline:
            pipeline.incr(f"{key}:n")
            pipeline.incr(f"{key}:n")
            await pipeline.execute()
        assert taps.exchanges == 3


async def test_a_blocking_read_is_pending_until_the_server_answers() -> None:
    taps = Taps()
    async with fresh("stream") as stream, client(taps) as redis, client() as writer:
        reading: asyncio.Future[object] = asyncio.ensure_future(redis.xread({stream: "0"}, block=0))
        await until(lambda: taps.pending == 1)
        await writer.xadd(stream, {"body": "안녕"})
        assert await reading
        assert taps.pending == 0
        reading = asyncio.ensure_future(redis.xread({stream: "$"}, block=0))
        await until(lambda: taps.pending == 1)
        reading.cancel()
        await asyncio.wait([reading])
        assert taps.pending == 0


@pytest.mark.parametrize(("moment", "stored"), [("before", 1), ("after", 2)])
async def test_a_connection_breaks_before_or_after_the_server_executes_a_command(moment: Moment, stored: int) -> None:
    taps = Taps()
    taps.at(2, moment, break_off)
    async with fresh("key") as key, client(taps) as redis:
        await redis.incr(key)
        with pytest.raises(RedisConnectionError, match="the connection broke"):
            await redis.incr(key)
        assert await redis.get(key) == str(stored)  # the client has reconnected


async def test_a_client_returns_bytes_or_text() -> None:
    async with fresh("key") as key, client() as text, client(decode=False) as octets:
        await octets.set(key, b"1")
        assert (await text.get(key), await octets.get(key)) == ("1", b"1")


async def test_a_watched_broker_counts_readers_and_published_records() -> None:
    async with fresh("topic") as topic, watched_broker() as broker:
        async with aclosing(await broker.subscribe(topic)) as subscription:
            assert broker.open == 1
            await broker.publish(topic, b"one")
            assert (await anext(subscription)).body == b"one"
        assert (broker.open, broker.published) == (0, 1)
        share = await broker.join(topic, "group", "member")
        assert broker.shares == [share]


@pytest.mark.parametrize(("moment", "stored"), [("before", 0), ("after", 1)])
async def test_a_publish_can_be_blocked(moment: Moment, stored: int) -> None:
    async with fresh("topic") as topic, watched_broker() as broker, client() as redis:
        broker.stand_still(moment)
        publishing = asyncio.create_task(broker.publish_once(topic, b"one", "key"))
        await asyncio.wait_for(broker.standing.wait(), 5)
        assert await redis.xlen(topic) == stored
        publishing.cancel()
        await broker.publish_once(topic, b"one", "key")
        assert await redis.xlen(topic) == 1
