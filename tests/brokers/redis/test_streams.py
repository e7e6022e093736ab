"""What the broker on Redis Streams does beyond the port: trimming, durability, one blocking read, poison, outages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis import streams as redis_streams
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.streams import EARLY, RedisStreamsBroker, answers_early
from chatlab.errors import BrokerError, BrokerUnavailable, SetupError, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, topic, until

pytestmark = pytest.mark.every_loop

NODE = 100  # entries in one node of a stream: `stream-node-max-entries`


async def test_a_stream_keeps_its_configured_length_and_at_most_one_node_more(redis_engine: Engine) -> None:
    async with (
        RedisStreamsBroker(redis_engine.url, max_length=500) as broker,
        Redis.from_url(redis_engine.url) as redis,
    ):
        name = topic()
        await publish_all(broker, name, [b"%d" % n for n in range(2000)])
        assert 500 <= await redis.xlen(name) <= 500 + NODE
        await asyncio.gather(*(broker.publish_once(name, b"x", str(n)) for n in range(500)))
        assert 500 <= await redis.xlen(name) <= 500 + NODE


async def test_a_stream_can_be_trimmed_by_age(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url, max_age=0.2) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        await publish_all(broker, name, [b"old"] * 500)
        await asyncio.sleep(0.3)  # the age itself
        await broker.publish(name, b"new")
        assert 1 <= await redis.xlen(name) <= 1 + NODE
        assert (await broker.history(name, limit=1))[0].body == b"new"


async def test_a_reader_overtaken_by_trimming_ends_with_subscription_lost(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url, max_length=1000) as broker:
        name = topic()
        seen = await broker.publish(name, b"seen")
        reader = await broker.subscribe(name, after=seen)
        await publish_all(broker, name, [b"x"] * 3000)
        with pytest.raises(SubscriptionLost, match=f"trimmed past its reader at {seen}"):
            await read(reader, 1)
        oldest = await broker.oldest(name)
        assert oldest is not None
        assert broker.is_before(seen, oldest)  # how a chat finds a possible gap
        assert len(await bodies(await broker.subscribe(name, after=BEGINNING), 1000)) == 1000


async def test_a_hung_server_is_noticed_and_readers_miss_nothing(
    fresh_redis: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "TIMEOUT", 0.3)
    monkeypatch.setattr(redis_streams, "BLOCK", 0.2)
    assert fresh_redis.pid is not None
    async with RedisStreamsBroker(fresh_redis.url) as broker, RedisStreamsBroker(fresh_redis.url) as other:
        name = topic()
        reader = await broker.subscribe(name)
        reading = asyncio.create_task(bodies(reader, 200))
        await publish_all(other, name, [b"%d" % n for n in range(100)])
        os.kill(fresh_redis.pid, signal.SIGSTOP)
        await until(lambda: not broker.connected, "the silence is noticed")
        waiting = asyncio.create_task(other.publish_once(name, b"100", "100"))
        await asyncio.sleep(0.5)  # as long as the server hangs
        os.kill(fresh_redis.pid, signal.SIGCONT)
        await waiting
        await publish_all(other, name, [b"%d" % n for n in range(101, 200)])
        assert await reading == [b"%d" % n for n in range(200)]
        await until(lambda: broker.connected, "the broker is known to be back")


async def test_a_key_of_another_type_is_an_error_for_its_topic_only(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name, other = topic(), topic()
        await redis.set(name, "a string")
        published = asyncio.gather(broker.publish(name, b"x"), broker.publish(other, b"x"), return_exceptions=True)
        refused, stored = await published
        assert isinstance(refused, BrokerError)
        assert "WRONGTYPE" in str(refused)
        assert isinstance(stored, str)
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.subscribe(name)


async def test_foreign_entries_without_a_body_are_delivered_empty(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        reader = await broker.subscribe(name)
        await redis.xadd(name, {"message": "the article's second controller"})
        await redis.xadd(name, {"time": "12:00", "body": "with more fields"})
        assert await bodies(reader, 2) == [b"", b"with more fields"]
        assert [each.body for each in await broker.history(name)] == [b"", b"with more fields"]


async def test_a_deleted_stream_starts_over(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        reader = await broker.subscribe(name)
        await broker.publish(name, b"1")
        assert await bodies(reader, 1) == [b"1"]
        await redis.delete(name)
        late = await broker.subscribe(name)
        await broker.publish(name, b"2")
        assert await bodies(reader, 1) == [b"2"]
        assert await bodies(late, 1) == [b"2"]


async def test_a_script_flushed_by_the_server_is_loaded_again(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        await redis.script_flush()
        assert await broker.publish_once(name, b"x", "k") == await broker.publish_once(name, b"x", "k")


async def test_a_key_is_remembered_for_the_window_and_no_longer(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url, window=0.2) as broker:
        name = topic()
        first = await broker.publish_once(name, b"x", "k")
        await asyncio.sleep(0.25)  # the window itself
        assert await broker.publish_once(name, b"x", "k") != first


# Durability


async def never(link: Link, command: Command) -> bool:
    return False


async def test_fsync_is_refused_where_the_server_cannot_promise_it(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await redis.config_set("appendonly", "no")
    broker = RedisStreamsBroker(fresh_valkey.url, durability="fsync")
    with pytest.raises(SetupError, match=r"cannot confirm that a message is on disk .* set `appendonly yes`"):
        await broker.start()


async def test_fsync_adds_no_command_on_a_server_that_always_syncs(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        async with RedisStreamsBroker(fresh_valkey.url, durability="fsync") as broker:
            await broker.publish("t", b"x")
        assert "cmdstat_waitaof" not in await redis.info("commandstats")


async def test_fsync_is_refused_by_a_server_that_confirms_before_the_disk_has_it(fresh_valkey: Engine) -> None:
    """Check that `chatlab` notices it, on the Valkey in the wheel: if this fails, its WAITAOF has been corrected."""
    async with Redis.from_url(fresh_valkey.url) as redis:
        await redis.config_set("appendfsync", "everysec")
        with pytest.raises(SetupError, match=r"before it is .*; set `appendfsync always`"):
            await RedisStreamsBroker(fresh_valkey.url, durability="fsync").start()


async def test_a_server_that_waits_for_its_disk_is_not_taken_for_one_that_does_not(fresh_valkey: Engine) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(1000):
            if b"WAITAOF" in command:
                await asyncio.sleep(EARLY * 2)
            writer.write(b"*2\r\n:1\r\n:0\r\n" if b"WAITAOF" in command else b"+OK\r\n" * command.count(b"*"))

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        link = Link(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2", 3)
        await link.open()
        assert not await answers_early(link, ("WAITAOF", 1, 0, 2000))
        await link.close()


async def test_fsync_waits_for_the_disk_once_for_each_pipeline(
    fresh_valkey: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "answers_early", never)  # it does, but this is about the number of commands
    async with Redis.from_url(fresh_valkey.url) as redis:
        await redis.config_set("appendfsync", "everysec")
        async with RedisStreamsBroker(fresh_valkey.url, durability="fsync") as broker:
            await broker.publish("t", b"the first, which gives the topic its end a moment later")
            while await redis.ttl("t") < 0:
                pass
            await broker.publish("t", b"the next is confirmed after all that came before")
            before = (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"]
            await asyncio.gather(*(broker.publish("t", b"x") for _ in range(100)))
        assert (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"] == before + 1


async def test_fsync_is_refused_by_a_server_that_cannot_wait_for_its_disk(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("appendfsync", "everysec")
        with contextlib.suppress(ResponseError):  # an older server does not know the command at all
            await redis.acl_setuser("default", enabled=True, commands=["-waitaof"])
    with pytest.raises(SetupError, match="cannot confirm"):
        await RedisStreamsBroker(fresh_redis.url, durability="fsync").start()


async def test_fsync_refuses_publishes_while_the_server_cannot_sync(fresh_valkey: Engine) -> None:
    async with RedisStreamsBroker(fresh_valkey.url, durability="fsync", patience=3) as broker:
        async with Redis.from_url(fresh_valkey.url) as redis:
            await redis.config_set("appendonly", "no")
            await redis.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises((SetupError, BrokerUnavailable)):
                await broker.publish("t", b"x")
            await redis.config_set("appendonly", "yes")
        await broker.publish("t", b"y")
