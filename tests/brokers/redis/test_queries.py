"""Queries to Redis are retried while the server is away, for at most `patience` seconds."""

from __future__ import annotations

import asyncio
import time

import pytest

from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis.position import Position, StreamState
from chatlab.brokers.redis.queries import StreamQueries, is_before
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable
from chatlab.lab.engines.engine import Engine
from chatlab.lab.engines.kinds import free_ports
from tests.support.broker_cases import topic


async def test_a_question_waits_for_a_server_that_is_restarted(fresh_redis: Engine) -> None:
    queries, name = StreamQueries(fresh_redis.url, patience=20, timeout=3), topic()
    await queries.ask("XADD", name, "1-1", "body", "x")
    fresh_redis.kill()
    asking = asyncio.create_task(queries.page(name, BEGINNING))
    await asyncio.sleep(0.1)  # the outage
    await fresh_redis.restart()
    assert [record.id for record in await asking] == ["1-1"]
    await queries.aclose()


async def test_a_question_gives_up_when_its_patience_ends(fresh_redis: Engine) -> None:
    (port,) = free_ports(1)
    queries = StreamQueries(f"redis://127.0.0.1:{port}", patience=0.3, timeout=3)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="the broker does not answer"):
        await queries.state(topic())
    assert 0.3 <= time.monotonic() - started < 5
    await queries.aclose()


async def test_closing_ends_a_question_that_waits_for_a_server_that_is_away() -> None:
    (port,) = free_ports(1)
    queries = StreamQueries(f"redis://127.0.0.1:{port}", patience=60, timeout=3)
    asking = asyncio.create_task(queries.state(topic()))
    await asyncio.sleep(0.1)
    queries.refuse()
    async with asyncio.timeout(5):
        with pytest.raises(BrokerClosed):
            await asking
    with pytest.raises(BrokerClosed):
        await queries.ask("PING")
    await queries.aclose()


async def test_a_refused_query_is_not_retried(redis_engine: Engine) -> None:
    queries, name = StreamQueries(redis_engine.url, patience=60, timeout=3), topic()
    await queries.ask("SET", name, "a string")
    for question in (queries.page(name, BEGINNING), queries.state(name), queries.loss(name, Position("1-0"))):
        async with asyncio.timeout(5):
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                await question
    await queries.aclose()


async def test_a_stream_that_does_not_exist_is_empty(redis_engine: Engine) -> None:
    queries = StreamQueries(redis_engine.url, patience=5, timeout=3)
    assert await queries.state(topic()) == StreamState()
    assert await queries.loss(topic(), Position(BEGINNING, 0)) == (None, StreamState())
    await queries.aclose()


async def test_a_stream_that_lost_its_end_is_told_from_a_new_one_by_a_record_it_still_has(
    redis_engine: Engine,
) -> None:
    queries, name = StreamQueries(redis_engine.url, patience=5, timeout=3), topic()
    for number in range(1, 4):
        await queries.ask("XADD", name, f"1-{number}", "body", "x")
    lost_end, _ = await queries.loss(name, Position("5-0"), known="1-1")
    assert lost_end is not None and (lost_end.resume, lost_end.restarted) == ("1-3", True)
    new, _ = await queries.loss(name, Position("5-0"), known="4-4")
    assert new is not None and (new.resume, new.restarted) == (BEGINNING, True)
    await queries.aclose()


def test_ids_are_compared_by_their_numbers() -> None:
    assert is_before("9-9", "9-10") and is_before("9-10", "10-0") and not is_before("10-0", "10-0")
    with pytest.raises(ValueError, match="not a record id"):
        is_before("yesterday", "1-0")
