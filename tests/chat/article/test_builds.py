"""The article's builds: each fault, by the evidence in Redis and at the clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.chat import article as as_in_the_article
from chatlab.chat.article import Build
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.stomp_peer import Peer

GROUPS: dict[Build, str] = {"first": "chat-group", "second": "group"}
SEND = "/app/chat.sendMessage"


@pytest.fixture
async def redis(fresh_redis: Engine) -> AsyncIterator[Any]:
    client = Redis.from_url(fresh_redis.url)
    yield client
    await client.aclose()


async def content(peer: Peer) -> Any:
    return json.loads((await peer.frame("MESSAGE")).body)["content"]


async def test_f3_nobody_creates_the_group_and_the_first_build_never_reads_again(
    fresh_redis: Engine, redis: Any
) -> None:
    async with (
        await as_in_the_article.start(fresh_redis.url) as server,
        Peer(server.url) as peer,
    ):
        await peer.subscribe("/topic/public")
        await peer.receipt("SEND", '{"content":"x"}', destination=SEND)
        assert await content(peer) == "x", "the controller's answer"
        await until(lambda: server.faults)
        assert "NOGROUP" in server.faults[0]
        await redis.xgroup_create("chat-stream", "chat-group", "0")
        await peer.nothing_more()


async def test_f1_f2_f4_f5_f11_each_record_reaches_one_instance_in_quotes_and_stays_pending(
    fresh_redis: Engine, redis: Any
) -> None:
    await redis.xgroup_create("chat-stream", "chat-group", "$", mkstream=True)
    async with (
        await as_in_the_article.start(fresh_redis.url) as one,
        await as_in_the_article.start(fresh_redis.url) as other,
        Peer(one.url) as here,
        Peer(other.url) as there,
    ):
        await here.subscribe("/topic/public")
        await there.subscribe("/topic/public")
        for number in range(10):
            await here.receipt("SEND", json.dumps({"content": str(number)}), destination=SEND)
        async with asyncio.timeout(5):
            while (await redis.xinfo_groups("chat-stream"))[0]["pending"] < 10:  # noqa: ASYNC110  # only Redis knows
                await asyncio.sleep(0.01)
        at_home, abroad = await here.rest(), await there.rest()
        assert [text for text in at_home if not text.startswith('"')] == [str(number) for number in range(10)]
        in_quotes = [text for text in at_home + abroad if text.startswith('"')]
        assert sorted(in_quotes) == [f'"{number}"' for number in range(10)], "each reached one of the two, once"
        assert len(abroad) < 10
        assert (await redis.xinfo_stream("chat-stream"))["length"] == 10


async def test_f6_the_builds_show_each_others_messages_as_empty(fresh_redis: Engine, redis: Any) -> None:
    for group in GROUPS.values():
        await redis.xgroup_create("chat-stream", group, "$", mkstream=True)
    async with (
        await as_in_the_article.start(fresh_redis.url, build="first") as first,
        await as_in_the_article.start(fresh_redis.url, build="second") as second,
        Peer(first.url) as at_first,
        Peer(second.url) as at_second,
    ):
        await at_first.subscribe("/topic/public")
        await at_second.subscribe("/topic/public")
        await at_first.receipt("SEND", '{"content":"x"}', destination=SEND)
        assert await content(at_second) is None
        await at_second.receipt("SEND", '{"content":"y"}', destination=SEND)
        assert sorted(map(str, [await content(at_second) for _ in range(2)])) == ["y", "y"], (
            "without quotes here, but twice"
        )
        assert sorted(map(str, [await content(at_first) for _ in range(3)])) == ['"x"', "None", "x"]


async def test_the_second_build_continues_after_an_error(fresh_redis: Engine, redis: Any) -> None:
    async with await as_in_the_article.start(fresh_redis.url, build="second") as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/public")
        await until(lambda: server.faults)
        await redis.xgroup_create("chat-stream", "group", "$", mkstream=True)
        await peer.receipt("SEND", '{"content":"x"}', destination=SEND)
        assert [await content(peer) for _ in range(2)] == ["x", "x"]
