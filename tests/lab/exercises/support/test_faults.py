"""Faults at named moments: a tap on a client's commands, and a twin that shares no memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.lab.engines.engine import Engine
from chatlab.lab.exercises.support.faults import CommandTap, Story, twin
from chatlab.lab.exercises.support.redis import break_off, tapped

SEEN: list[str] = []


def remember(text: str) -> int:
    SEEN.append(text)
    return len(SEEN)


async def remembering(text: str, kept: dict[str, int] = {}) -> tuple[int, int]:  # noqa: B006  # a learner's mistake
    kept[text] = kept.get(text, 0) + 1
    return remember(text), kept[text]


async def test_a_twin_has_its_own_globals_and_defaults_also_in_the_functions_it_calls() -> None:
    other = twin(remembering)
    assert await remembering("a") == (len(SEEN), 1)
    before = len(SEEN)
    assert await other("a") == (before, 1)  # what was there when it was made, and its own
    assert await other("a") == (before + 1, 2)
    assert len(SEEN) == before


def counter() -> Callable[[], int]:
    count = {"calls": 0}

    def call() -> int:
        count["calls"] += 1
        return count["calls"]

    return call


def test_a_twin_has_its_own_closure() -> None:
    one = counter()
    other = twin(one)
    assert [one(), one(), other()] == [1, 2, 1]


async def test_a_connection_is_lost_after_redis_has_executed_the_chosen_command(valkey_engine: Engine) -> None:
    tap = CommandTap()
    async with tapped(valkey_engine.url, tap) as redis:
        await redis.delete("tapped")
        tap.reset()
        tap.at("store", 2, break_off)
        await redis.incr("tapped")
        assert await redis.xread({"tapped-stream": "0"}) in ([], {})  # a read does not count among those that store
        with pytest.raises(RedisConnectionError):
            await redis.incr("tapped")
        assert await redis.get("tapped") == "2"
        assert tap.names == ["INCRBY", "INCRBY", "GET"]


async def test_an_action_runs_before_the_caller_has_the_reply_of_a_read(valkey_engine: Engine) -> None:
    tap = CommandTap()
    async with tapped(valkey_engine.url, tap) as redis, tapped(valkey_engine.url, CommandTap()) as other:
        await redis.delete("tapped-stream")
        await redis.xadd("tapped-stream", {"text": "first"})

        async def meanwhile() -> None:
            await other.xadd("tapped-stream", {"text": "meanwhile"})

        tap.at("read", 1, meanwhile)
        assert len(await redis.xrange("tapped-stream") or []) == 1
        assert len(await redis.xrange("tapped-stream") or []) == 2


async def test_a_pipeline_counts_as_one_command_with_all_its_names(valkey_engine: Engine) -> None:
    tap = CommandTap()
    async with tapped(valkey_engine.url, tap) as redis, redis.pipeline(transaction=True) as together:
        together.set("tapped", "1")
        together.delete("tapped")
        await together.execute()
    assert tap.names == ["MULTI SET DEL EXEC"]


def test_a_story_names_its_fault_and_numbers_its_steps() -> None:
    story = Story("Redis gone")
    story.add("Redis is killed")
    story.add("Redis is back")
    assert str(story) == "the fault: Redis gone\n1. Redis is killed\n2. Redis is back"


async def test_a_twin_of_a_lock_is_another_lock() -> None:
    other = twin(is_free)
    async with LOCK:
        assert await other()
        assert not await is_free()


LOCK = asyncio.Lock()


async def is_free() -> Any:
    return not LOCK.locked()
