"""One blocking read for all members of an instance: none loses a record, and none stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chatlab.brokers.redis.connections.link import Argument, Command, Link
from chatlab.brokers.redis.group_reader import COUNT, COUNT_IN_ALL, SharedGroupReader, SharedLink
from chatlab.brokers.redis.queries import StreamQueries
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, topic, until

LONG = 30.0  # seconds that no test waits


@asynccontextmanager
async def reader_at(url: str) -> AsyncIterator[SharedGroupReader]:
    queries = StreamQueries(url, 5, 3)
    reader = SharedGroupReader(Link(url, 3), queries, "work", "me", 60_000)
    reader.start()
    try:
        yield reader
    finally:
        await reader.aclose()
        await queries.aclose()


async def streams(redis: Redis, count: int) -> list[str]:
    names = [topic() for _ in range(count)]
    for name in names:
        await redis.xgroup_create(name, "work", "$", mkstream=True)
    return names


async def is_blocked(redis: Redis, id: int) -> bool:
    """Whether the server keeps that connection waiting."""
    return any(client["id"] == str(id) and "b" in client["flags"] for client in await redis.client_list())


async def test_a_record_read_for_a_member_that_has_left_is_released_to_others(redis_engine: Engine) -> None:
    async with (
        Redis.from_url(redis_engine.url) as redis,
        reader_at(redis_engine.url) as reader,
        RedisStreamsBroker(redis_engine.url, takeover_after=60) as broker,
    ):
        (name,) = await streams(redis, 1)
        leaving = asyncio.create_task(reader.read(name, LONG))
        await until(lambda: reader._id != 0 and reader._waker is not None and reader._waker.done(), "nothing wakes it")
        while not await is_blocked(redis, reader._id):  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.01)
        reader._wake = lambda: None  # type: ignore[method-assign]  # it leaves so late that the read is not woken
        leaving.cancel()
        await broker.publish(name, b"1")
        while not (await redis.xpending(name, "work"))["pending"]:  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.01)
        assert await bodies(await broker.join(name, "work", "another"), 1, 5) == [b"1"]


async def test_a_missing_group_is_an_error_for_its_member_only(redis_engine: Engine) -> None:
    async with Redis.from_url(redis_engine.url) as redis, reader_at(redis_engine.url) as reader:
        good, bad = await streams(redis, 2)
        reading = asyncio.create_task(reader.read(good, LONG))
        await redis.delete(bad)
        with pytest.raises(ResponseError, match="NOGROUP"):
            await reader.read(bad, LONG)
        await redis.xadd(good, {"body": "1"})
        ((_, fields),) = await reading
        assert fields == [b"body", b"1"]


async def test_a_read_ends_at_its_deadline_although_other_members_wait_longer(redis_engine: Engine) -> None:
    async with Redis.from_url(redis_engine.url) as redis, reader_at(redis_engine.url) as reader:
        one, other = await streams(redis, 2)
        longer = asyncio.create_task(reader.read(one, LONG))
        assert await reader.read(other, 0.05) == []
        longer.cancel()


async def test_a_reply_holds_a_bounded_number_of_records_however_many_streams_are_full(redis_engine: Engine) -> None:
    async with Redis.from_url(redis_engine.url) as redis, reader_at(redis_engine.url) as reader:
        names = await streams(redis, 64)
        async with redis.pipeline(transaction=False) as pipeline:
            for name in names:
                for _ in range(COUNT):
                    pipeline.xadd(name, {"body": "1"})
            await pipeline.execute()
        first = await asyncio.gather(*(reader.read(name, LONG) for name in names))
        assert sum(map(len, first)) <= COUNT_IN_ALL + COUNT  # the first of them may be read alone


async def test_many_members_on_one_broker_keep_working_when_their_link_reconnects(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, takeover_after=60) as broker:
        names = [topic() for _ in range(20)]
        members = [await broker.join(name, "work", "me") for name in names]
        fresh_redis.kill()
        await fresh_redis.restart()
        for name in names:
            await publish_all(broker, name, [b"1", b"2"], at_once=1)
        for member in members:
            records = await read(member, 2)
            for record in records:
                await member.ack(record)


async def test_a_shared_link_survives_a_call_that_was_cancelled(redis_engine: Engine) -> None:
    link = SharedLink(Link(redis_engine.url, 3))
    calls = [asyncio.create_task(link.call("PING")) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[5].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer for answer in answers if answer != b"PONG" and not isinstance(answer, asyncio.CancelledError)] == []
    await link.close()


async def test_many_waiting_members_share_one_deadline(redis_engine: Engine) -> None:
    async with Redis.from_url(redis_engine.url) as redis, reader_at(redis_engine.url) as reader:
        names = await streams(redis, 50)

        async def wait_again_and_again(name: str, first: float) -> None:
            await asyncio.sleep(first)  # each begins at another time
            while True:
                await reader.read(name, 0.4)

        waiting = [asyncio.create_task(wait_again_and_again(name, number / 100)) for number, name in enumerate(names)]
        await asyncio.sleep(1.5)  # all have come, and wait
        calls: list[int] = []
        command = reader._command

        def counted(topics: Sequence[str], block: tuple[Argument, ...] = ()) -> Command:
            calls.append(len(topics))
            return command(topics, block)

        reader._command = counted  # type: ignore[method-assign]  # what the server is asked
        await asyncio.sleep(1.6)  # four times what they wait
        assert len(calls) <= 20
        for task in waiting:
            task.cancel()
