"""What the broker on Redis Streams does beyond the port: trimming, durability, one blocking read, poison, outages."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers import redis_streams
from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis_link import Command, Link
from chatlab.brokers.redis_streams import RedisStreamsBroker
from chatlab.errors import BrokerError, BrokerUnavailable, SetupError, SubscriptionLost
from chatlab.lab.engines import Engine
from tests.support.broker_cases import bodies, publish_all, read, topic, until

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


async def test_a_reader_that_trimming_overtakes_is_told(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url, max_length=1000) as broker:
        name = topic()
        seen = await broker.publish(name, b"seen")
        subscription = await broker.subscribe(name, after=seen)
        await publish_all(broker, name, [b"x"] * 3000)
        with pytest.raises(SubscriptionLost, match=f"trimmed past its reader at {seen}"):
            await read(subscription, 1)
        oldest = await broker.oldest(name)
        assert oldest is not None
        assert broker.is_before(seen, oldest)  # how a chat finds a possible gap
        assert len(await bodies(await broker.subscribe(name, after=BEGINNING), 1000)) == 1000


async def test_publishes_of_one_loop_turn_leave_in_one_pipeline(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    pipeline = Link.pipeline

    async def watched(self: Link, commands: Sequence[Command], replies: list[Any], *, wait: float = 0) -> None:
        sizes.extend([len(commands)] if commands[0][0] == b"XADD" else [])
        await pipeline(self, commands, replies, wait=wait)

    monkeypatch.setattr(Link, "pipeline", watched)
    async with RedisStreamsBroker(redis_engine.url) as broker:
        name = topic()
        await asyncio.gather(*(broker.publish(name, b"x") for _ in range(300)))
        assert sizes == [300]


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


async def test_a_topic_that_joins_does_not_wait_for_the_blocking_read_under_way(redis_engine: Engine) -> None:
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


async def test_blocking_reads_starve_nobody(redis_engine: Engine) -> None:
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


async def test_a_server_that_hangs_is_noticed_and_missed_by_nobody(
    fresh_redis: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "TIMEOUT", 0.3)
    monkeypatch.setattr(redis_streams, "BLOCK", 0.2)
    assert fresh_redis.pid is not None
    async with RedisStreamsBroker(fresh_redis.url) as broker, RedisStreamsBroker(fresh_redis.url) as other:
        name = topic()
        subscription = await broker.subscribe(name)
        reading = asyncio.create_task(bodies(subscription, 200))
        await publish_all(other, name, [b"%d" % n for n in range(100)])
        os.kill(fresh_redis.pid, signal.SIGSTOP)
        await until(lambda: not broker.connected, "the silence is noticed")
        waiting = asyncio.create_task(other.publish_once(name, b"100", "100"))
        await asyncio.sleep(0.5)  # as long as the server hangs
        os.kill(fresh_redis.pid, signal.SIGCONT)
        await waiting
        await publish_all(other, name, [b"%d" % n for n in range(101, 200)])
        assert await reading == [b"%d" % n for n in range(200)]
        assert broker.connected


async def test_broken_connections_cost_nothing_and_repeat_nothing(redis_engine: Engine) -> None:
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


async def test_what_its_publisher_gave_up_on_before_it_was_sent_is_not_sent_later(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, patience=0.2) as broker:
        fresh_redis.kill()
        with pytest.raises(BrokerUnavailable):
            await broker.publish("t", b"given up")
        await fresh_redis.restart()
        await until(lambda: broker.connected, "the engine is found again")
        await broker.publish("t", b"next")
        assert [each.body for each in await broker.history("t")] == [b"next"]


async def test_a_server_that_became_a_replica_is_waited_for(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        await redis.replicaof("127.0.0.1", "1")  # as in a failover: it refuses writes
        waiting = [asyncio.create_task(broker.publish("t", b"%d" % n)) for n in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        await redis.replicaof("NO", "ONE")
        await asyncio.gather(*waiting)
        assert [each.body for each in await broker.history("t")] == [b"0", b"1", b"2"]


async def test_a_server_without_memory_refuses_loudly(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            await broker.publish("t", b"x")
        await redis.config_set("maxmemory", 0)
        await broker.publish("t", b"x")


async def test_a_key_that_is_no_stream_is_an_error_of_that_topic_alone(redis_engine: Engine) -> None:
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


async def test_records_of_others_without_a_body_are_delivered_empty(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        subscription = await broker.subscribe(name)
        await redis.xadd(name, {"message": "the article's second controller"})
        await redis.xadd(name, {"time": "12:00", "body": "with more fields"})
        assert await bodies(subscription, 2) == [b"", b"with more fields"]
        assert [each.body for each in await broker.history(name)] == [b"", b"with more fields"]


async def test_a_stream_that_was_deleted_begins_anew(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        subscription = await broker.subscribe(name)
        await broker.publish(name, b"1")
        assert await bodies(subscription, 1) == [b"1"]
        await redis.delete(name)
        late = await broker.subscribe(name)
        await broker.publish(name, b"2")
        assert await bodies(subscription, 1) == [b"2"]
        assert await bodies(late, 1) == [b"2"]


async def test_a_forgotten_script_is_loaded_again(redis_engine: Engine) -> None:
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


async def test_fsync_is_refused_where_the_server_cannot_promise_it(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await redis.config_set("appendonly", "no")
    broker = RedisStreamsBroker(fresh_valkey.url, durability="fsync")
    with pytest.raises(SetupError, match=r"cannot confirm that a message is on disk .* set `appendonly yes`"):
        await broker.start()


async def test_fsync_needs_nothing_more_of_a_server_that_always_syncs(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await redis.config_set("appendfsync", "always")
        async with RedisStreamsBroker(fresh_valkey.url, durability="fsync") as broker:
            await broker.publish("t", b"x")
        assert "cmdstat_waitaof" not in await redis.info("commandstats")


async def test_fsync_waits_for_the_disk_once_for_each_pipeline(fresh_valkey: Engine) -> None:
    async with (
        Redis.from_url(fresh_valkey.url) as redis,
        RedisStreamsBroker(fresh_valkey.url, durability="fsync") as broker,
    ):
        await asyncio.gather(*(broker.publish("t", b"x") for _ in range(100)))
        waits = (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"]
        assert waits == 2  # one asks at the start whether the server can, one ends the pipeline
        assert (await redis.info("persistence"))["aof_pending_bio_fsync"] == 0


async def test_fsync_survives_that_the_server_comes_back_unable(fresh_valkey: Engine) -> None:
    async with RedisStreamsBroker(fresh_valkey.url, durability="fsync", patience=3) as broker:
        async with Redis.from_url(fresh_valkey.url) as redis:
            await redis.config_set("appendonly", "no")
            await redis.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises((SetupError, BrokerUnavailable)):
                await broker.publish("t", b"x")
            await redis.config_set("appendonly", "yes")
        await broker.publish("t", b"y")


# Groups


async def test_a_record_nobody_can_handle_is_set_aside(redis_engine: Engine) -> None:
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


async def test_a_member_that_comes_back_gets_what_it_had_not_acknowledged_at_once(redis_engine: Engine) -> None:
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


async def test_a_group_whose_stream_was_deleted_is_made_again(redis_engine: Engine) -> None:
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


async def test_work_that_was_trimmed_before_it_was_done_is_let_go(redis_engine: Engine) -> None:
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
