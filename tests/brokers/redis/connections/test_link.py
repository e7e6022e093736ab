"""What chatlab uses of redis-py below its commands: if this fails, a new version has changed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chatlab.brokers.redis.connections.link import Link
from chatlab.errors import LinkLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import topic


@pytest.fixture
async def link(redis_engine: Engine) -> AsyncIterator[Link]:
    link = Link(redis_engine.url, timeout=5)
    await link.open()
    yield link
    await link.close()


async def test_replies_come_in_the_order_of_the_commands_and_an_error_is_one_of_them(link: Link) -> None:
    name = topic()
    replies: list[Any] = []
    await link.pipeline([("SET", name, "1"), ("LPUSH", name, "x"), ("INCR", name)], replies)
    assert (replies[0], replies[2]) == (b"OK", 2)
    assert isinstance(replies[1], ResponseError)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await link.call("LPUSH", name, "x")
    assert await link.call("GET", name) == b"2", "the connection goes on"


async def test_octets_are_sent_and_returned_unchanged(link: Link) -> None:
    name, octets = topic(), bytes(range(256))
    assert await link.call(b"SET", name, octets) == b"OK"
    assert await link.call("GET", name) == octets


async def test_receive_returns_none_for_silence_and_pushed_messages_unchanged(link: Link, redis_engine: Engine) -> None:
    name = topic()
    await link.send("SUBSCRIBE", name)
    assert await link.receive(5) == [b"subscribe", name.encode(), 1]
    assert await link.receive(0.05) is None
    async with Redis.from_url(redis_engine.url) as other:
        await other.publish(name, b"pushed")
    assert await link.receive(5) == [b"message", name.encode(), b"pushed"]


async def test_a_reply_may_take_as_long_as_wait_allows(link: Link) -> None:
    began = asyncio.get_running_loop().time()
    assert await link.call("XREAD", "BLOCK", 200, "STREAMS", topic(), "$", wait=5) is None
    assert asyncio.get_running_loop().time() - began >= 0.15


async def test_a_connection_closed_by_the_server_is_noticed_before_use(link: Link, redis_engine: Engine) -> None:
    assert await link.is_usable()
    id = await link.call("CLIENT", "ID")
    async with Redis.from_url(redis_engine.url) as other:
        await other.client_kill_filter(_id=str(id))
    async with asyncio.timeout(5):
        while await link.is_usable():  # noqa: ASYNC110 - the socket's end is no event: one has to look
            await asyncio.sleep(0.01)
    with pytest.raises(LinkLost, match="lost the connection"):
        await link.call("PING")
    assert not link.is_open
    await link.open()
    assert await link.call("PING") == b"PONG"


async def test_a_call_that_is_cancelled_leaves_no_reply_for_the_next_one(link: Link) -> None:
    waiting = asyncio.create_task(link.call("XREAD", "BLOCK", 0, "STREAMS", topic(), "$", wait=60))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not link.is_open
    await link.open()
    assert await link.call("ECHO", "mine") == b"mine"
