"""Lesson 07's experiments, shortened: the chat with faults, delays, the path of a message, load."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest_asyncio
from redis.asyncio import Redis

from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat import article as as_in_the_article
from chatlab.chat.article import java
from chatlab.chat.endpoint import server as chat
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson07
from chatlab.lab.experiments.lesson07 import (
    burst,
    database,
    delays,
    load,
    member,
    put_as_java,
    said,
    stored_before_receipt,
    talk_while,
    way_of_one_message,
)
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Trace
from chatlab.lab.wire.wire import Wire


@pytest_asyncio.fixture
async def server(fresh_redis: Engine) -> AsyncIterator[chat.ChatServer]:
    async with RedisStreamsBroker(fresh_redis.url) as broker, await chat.start(broker) as server:
        yield server


async def test_nothing_is_lost_while_redis_is_killed(server: chat.ChatServer, fresh_redis: Engine) -> None:
    people = [await member(server.url, name) for name in ("가람", "Nuri")]

    async def kill_redis() -> None:
        fresh_redis.kill()
        await fresh_redis.restart()

    found = await talk_while(people, kill_redis, messages=5, every=0.02)
    assert (found.sent, found.clean) == (10, True), found
    await asyncio.gather(*(person.close() for person in people))


async def test_delays_and_bursts_are_measured(server: chat.ChatServer) -> None:
    garam, nuri = await member(server.url, "가람"), await member(server.url, "Nuri")
    assert len(await delays(garam.send, nuri, messages=3, every=0)) == 3
    assert 0 < (await burst(garam.send, nuri, messages=5)).seconds < 10
    assert said(nuri)[-1].startswith("burst")
    await asyncio.gather(garam.close(), nuri.close())


async def test_the_articles_poll_takes_ten_records_at_a_time(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.xgroup_create("chat-stream", "group", id="0", mkstream=True)
        async with await as_in_the_article.start(fresh_redis.url, build="second") as server:
            nuri = await member(server.url, "Nuri", receipts=False)

            async def put(text: str) -> None:
                await redis.xadd("chat-stream", {java.serialize("message"): java.serialize(text)})

            assert (await burst(put, nuri, messages=30)).seconds > 0.15
            await nuri.close()


async def test_a_record_is_stored_before_its_receipt_goes_out(fresh_redis: Engine) -> None:
    trace = Trace()
    async with (
        Wire(fresh_redis.url, names=("chat", "redis"), trace=trace) as inner,
        RedisStreamsBroker(inner.url) as broker,
        await chat.start(broker) as server,
        Wire(server.url, names=("가람", "chat"), trace=trace) as outer,
    ):
        way = await way_of_one_message(outer.url, trace)
        assert way[0].kind == "SEND"
        commands = [event.kind for event in way if event.layer == "redis" and event.sender == "client"]
        assert set(commands) <= {"EVALSHA", "XREAD"}  # nothing from the connection of the member
        assert stored_before_receipt(way)


async def test_with_more_instances_each_has_a_smaller_share_of_the_load(redis_engine: Engine) -> None:
    async with Cluster(redis_engine.url, instances=2) as cluster:
        shared = await load(cluster, members=4, messages=5)
        assert [(share.connections, share.deliveries) for share in shared] == [(2, 10), (2, 10)]
        cluster.kill(1)
        [alone] = await load(cluster, members=4, messages=5)
        assert (alone.connections, alone.deliveries) == (4, 20)


async def test_a_member_that_was_away_misses_messages_in_the_rebuild_and_none_in_the_chat(
    valkey_engine: Engine,
) -> None:
    async with await as_in_the_article.start(valkey_engine.url) as server:
        assert await lesson07.missed_while_away(server.url, receipts=False) == 5
    async with RedisStreamsBroker(valkey_engine.url) as broker, await chat.start(broker) as running:
        assert await lesson07.missed_while_away(running.url) == 0


async def test_the_second_build_makes_up_for_the_reads_of_a_pause(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await lesson07.new_stream(redis, "group")
        await lesson07.new_stream(redis, "group")  # a cell may be run again
        async with await as_in_the_article.start(fresh_valkey.url, build="second"):
            await asyncio.sleep(0.3)
            assert await lesson07.reads_after_a_pause(redis, 1.5) > 10


async def test_a_record_as_java_writes_it_is_shown_by_the_second_build(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await lesson07.new_stream(redis, "group")
        async with await as_in_the_article.start(fresh_valkey.url, build="second") as server:
            reader = await lesson07.member(server.url, "둘", receipts=False)
            await asyncio.sleep(0.2)
            await lesson07.put_as_java(redis, "안녕")
            await until(lambda: lesson07.bodies(reader) == ['{"content":"안녕"}'])
            await reader.close()


async def test_a_foreign_record_costs_the_second_build_nine_others_and_the_chat_none(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await lesson07.new_stream(redis, "group")
        async with await as_in_the_article.start(fresh_valkey.url, build="second") as server:
            reader = await lesson07.member(server.url, "둘", receipts=False)
            assert await lesson07.shown_beside_a_foreign_record(redis, reader, lesson07.record_of_two) == 0
            await reader.close()
        await redis.delete("chat-stream")
        async with RedisStreamsBroker(fresh_valkey.url) as broker, await chat.start(broker) as running:
            nuri = await member(running.url, "Nuri")
            assert await lesson07.shown_beside_a_foreign_record(redis, nuri, lesson07.chat_record) == 9
            await nuri.close()


async def test_mistakes_are_met_with_silence_by_the_rebuild_and_with_error_by_the_chat(valkey_engine: Engine) -> None:
    async with await as_in_the_article.start(valkey_engine.url) as server:
        assert set((await lesson07.answers_to_mistakes(server.url)).values()) == {"silence"}
    async with RedisStreamsBroker(valkey_engine.url) as broker, await chat.start(broker) as running:
        assert set((await lesson07.answers_to_mistakes(running.url)).values()) == {"ERROR"}


async def test_two_databases_of_one_redis_share_no_stream(fresh_valkey: Engine) -> None:
    one = await lesson07.database(fresh_valkey.url, 1, group="chat-group")
    two = await lesson07.database(fresh_valkey.url, 2)
    assert (await one.redis.exists("chat-stream"), await two.redis.exists("chat-stream")) == (1, 0)
    await one.redis.xadd("chat-stream", {"content": "a"})
    await one.redis.xadd("chat-stream", {"content": "b"})
    assert await lesson07.newest(one.redis) == {b"content": b"b"}
    again = await lesson07.database(fresh_valkey.url, 1, group="chat-group")  # a cell may be run again
    assert await again.redis.xlen("chat-stream") == 0
    for each in (one, two, again):
        await each.aclose()


async def test_records_are_added_to_a_copy_of_the_stream(fresh_valkey: Engine) -> None:
    async with Redis.from_url(fresh_valkey.url) as redis:
        await lesson07.new_stream(redis, "chat-group")
        before, after = await lesson07.grown(redis, records=300)
        assert after > before > 0
        assert await redis.xlen("chat-stream") == 0
        assert await redis.keys("*") == [b"chat-stream"]


async def test_the_first_build_does_not_read_again_when_its_group_is_made(fresh_valkey: Engine) -> None:
    async with (
        Wire(fresh_valkey.url) as watched,
        Redis.from_url(fresh_valkey.url) as redis,
        await as_in_the_article.start(watched.url),
    ):
        await until(lambda: bool(lesson07.asked(watched.trace, "NOGROUP")))
        assert await lesson07.reads_after(redis, watched, "chat-group", seconds=1.2) == 0
        assert "BLOCK 1000" in lesson07.asked(watched.trace, "XREADGROUP")


async def test_more_commands_at_once_than_connections_wait_for_a_free_one(fresh_redis: Engine) -> None:
    async with contextlib.aclosing(await database(fresh_redis.url, 3)) as data:
        await asyncio.gather(*(put_as_java(data.redis, f"{number}") for number in range(200)))
        assert await data.redis.xlen("chat-stream") == 200
