"""The basis of checks on Redis: keys that are deleted, a connection that breaks on request, a watched broker."""

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.lab.exercises.support.redis import Moment, Taps, break_off, client, fresh, watched_broker
from chatlab.lab.runtime import lab

pytestmark = pytest.mark.usefixtures("each_redis")


async def test_only_keys_under_a_fresh_name_are_deleted_afterwards() -> None:
    async with Redis.from_url(await lab.redis()) as redis:
        await redis.set("somebody else's", "stays")
        async with fresh("topic") as topic, fresh("topic") as other:
            assert topic != other
            await redis.set(topic, "1")
            await redis.set(f"{{{topic}}}:once:key", "2")
        assert await redis.keys(f"*{topic}*") == []
        assert await redis.get("somebody else's") == b"stays"
        await redis.delete("somebody else's")


async def test_a_command_or_a_pipeline_counts_as_one_exchange() -> None:
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


@pytest.mark.parametrize(("moment", "stored"), [("before", 1), ("after", 2)])
async def test_a_connection_breaks_before_or_after_the_server_runs_the_command(moment: Moment, stored: int) -> None:
    taps = Taps()
    taps.at(2, moment, break_off)
    async with fresh("key") as key, client(taps) as redis:
        await redis.incr(key)
        with pytest.raises(RedisConnectionError, match="the connection broke"):
            await redis.incr(key)
        assert await redis.get(key) == str(stored)  # and the client has reconnected


async def test_a_client_returns_text_or_on_request_bytes() -> None:
    async with fresh("key") as key, client() as text, client(decode=False) as octets:
        await octets.set(key, b"1")
        assert (await text.get(key), await octets.get(key)) == ("1", b"1")


async def test_a_watched_broker_counts_its_subscriptions_and_publishes() -> None:
    async with fresh("topic") as topic, watched_broker() as broker:
        async with aclosing(await broker.subscribe(topic)) as subscription:
            assert broker.open == 1
            await broker.publish(topic, b"one")
            assert (await anext(subscription)).body == b"one"
        assert (broker.open, broker.published) == (0, 1)
        share = await broker.join(topic, "group", "member")
        assert broker.shares == [share]


@pytest.mark.parametrize(("moment", "stored"), [("before", 0), ("after", 1)])
async def test_a_publish_can_be_blocked_before_or_after_it_is_stored(moment: Moment, stored: int) -> None:
    async with fresh("topic") as topic, watched_broker() as broker, client() as redis:
        broker.stand_still(moment)
        publishing = asyncio.create_task(broker.publish_once(topic, b"one", "key"))
        await asyncio.wait_for(broker.standing.wait(), 5)
        assert await redis.xlen(topic) == stored
        publishing.cancel()
        await broker.publish_once(topic, b"one", "key")
        assert await redis.xlen(topic) == 1
