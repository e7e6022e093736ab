"""The article's builds: each fault, by the evidence in Redis and at the clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.chat import article as as_in_the_article
from chatlab.chat.article import Build
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.original.client import Client

GROUPS: dict[Build, str] = {"first": "chat-group", "second": "group"}
NULL = "null"  # an empty message, as Client.contents shows it


@pytest.fixture
async def redis(fresh_redis: Engine) -> AsyncIterator[Any]:
    client = Redis.from_url(fresh_redis.url)
    yield client
    await client.aclose()


async def test_f3_nobody_creates_the_group_and_the_first_build_never_reads_again(
    fresh_redis: Engine, redis: Any
) -> None:
    async with await as_in_the_article.start(fresh_redis.url) as server, Client(server.url) as peer:
        await peer.subscribe()
        await peer.say("x")
        await peer.until(1)
        await until(lambda: server.faults)
        assert "NOGROUP" in server.faults[0]
        await redis.xgroup_create("chat-stream", "chat-group", "0")
        await peer.quiet(1.5)  # longer than a poll
        assert peer.contents() == ["x"], "the controller's answer, and nothing else"


async def test_f1_f2_f4_f5_f11_each_record_reaches_one_instance_as_an_empty_message_and_stays_pending(
    fresh_redis: Engine, redis: Any
) -> None:
    await redis.xgroup_create("chat-stream", "chat-group", "$", mkstream=True)
    async with (
        await as_in_the_article.start(fresh_redis.url) as one,
        await as_in_the_article.start(fresh_redis.url) as other,
        Client(one.url) as here,
        Client(other.url) as there,
    ):
        await here.subscribe()
        await there.subscribe()
        for number in range(10):
            await here.say(str(number))
        await until(lambda: len(here.texts) + len(there.texts) == 20, timeout=10)
        shown = here.contents()
        assert [each for each in shown if each != NULL] == [str(number) for number in range(10)]
        assert shown.count(NULL) + there.contents().count(NULL) == 10, "each reached one of the two, once, and empty"
        assert set(there.contents()) <= {NULL}
        assert (await redis.xpending("chat-stream", "chat-group"))["pending"] == 10
        assert (await redis.xinfo_stream("chat-stream"))["length"] == 10


async def test_f6_the_builds_show_each_others_messages_as_empty(fresh_redis: Engine, redis: Any) -> None:
    for group in GROUPS.values():
        await redis.xgroup_create("chat-stream", group, "$", mkstream=True)
    async with (
        await as_in_the_article.start(fresh_redis.url, build="first") as first,
        await as_in_the_article.start(fresh_redis.url, build="second") as second,
        Client(first.url) as at_first,
        Client(second.url) as at_second,
    ):
        await at_first.subscribe()
        await at_second.subscribe()
        await at_first.say("x")
        await at_second.until(1)
        assert at_second.contents() == [NULL]
        await at_second.say("y")
        await at_second.until(3)
        assert at_second.contents() == [NULL, "y", "y"], "its own it shows twice"
        await at_first.until(3)
        assert at_first.contents() == [NULL, NULL, "x"]


async def test_the_second_build_continues_after_an_error(fresh_redis: Engine, redis: Any) -> None:
    async with await as_in_the_article.start(fresh_redis.url, build="second") as server, Client(server.url) as peer:
        await peer.subscribe()
        await until(lambda: server.faults)
        await redis.xgroup_create("chat-stream", "group", "$", mkstream=True)
        await peer.say("x")
        await peer.until(2)
        assert peer.contents() == ["x", "x"]


async def test_the_listener_outlives_a_redis_that_is_killed_and_comes_back(fresh_redis: Engine, redis: Any) -> None:
    await redis.xgroup_create("chat-stream", "chat-group", "$", mkstream=True)
    async with await as_in_the_article.start(fresh_redis.url) as server, Client(server.url) as peer:
        await peer.subscribe()
        fresh_redis.kill()
        await peer.say("waits")
        await asyncio.sleep(0.3)  # some attempts in vain
        await fresh_redis.restart()
        await peer.until(2)
        assert peer.contents() == [NULL, "waits"]
        assert server.faults == []
