"""`chatlab doctor --redis URL`: what a chat keeps there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis
from rich.console import Console

from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import BrokerUnavailable, SetupError
from chatlab.lab.doctor import redis as redis_doctor
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import read
from tests.support.commands import run


def shown(report: redis_doctor.Report) -> str:
    console = Console(width=200, record=True, file=None)
    with console.capture() as capture:
        console.print(redis_doctor.as_table(report), markup=False)
    return capture.get()


async def test_the_report_counts_each_kind_and_says_when_it_expires(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url, lasting=["chat-stream"]) as broker:
        for number in range(10):
            await broker.publish(f"chat:{{room{number}}}", b"x" * 1000)
        await broker.publish_once("chat-stream", b"hello", "key")
        member = await broker.join("queue:{jobs}", "subscribers", "me")
        for _ in range(3):
            await broker.publish("queue:{jobs}", b"work")
        await read(member, 3)
        await broker.oldest("chat-stream")
        report = await redis_doctor.examine(fresh_redis.url)
        rooms = report.kinds["rooms"]
        assert (rooms.keys, rooms.records, rooms.measured, rooms.endless) == (10, 10, 10, 0)
        assert 10_000 < rooms.estimated < 100_000
        assert rooms.last_end is not None
        assert 86_000 < rooms.last_end <= 86_400
        assert report.kinds["repeats"].keys == report.kinds["public room"].keys == 1
        (group,) = report.groups
        assert (group.stream, group.group, group.pending, group.waiting, group.consumers, group.dead) == (
            "queue:{jobs}",
            "subscribers",
            3,
            0,
            1,
            0,
        )
        names = {"chatlab:publishing", "chatlab:topics", "chatlab:questions", "chatlab:groups", "chatlab:group-reads"}
        assert names <= set(report.connections)
        assert report.allowed is not None
        text = shown(report)
        assert "rooms" in text
        assert "queue:{jobs}" in text


async def test_keys_without_expiry_are_named_and_foreign_keys_counted_separately(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.xadd("chat:{old}", {"body": "x"})
        await redis.xadd("topic:{\x1b[31mred}", {"body": "x"})
        await redis.set("somebody:else", "x")
        await redis.set("queue:{no-stream}", "x")
        before = await redis.dbsize()
        report = await redis_doctor.examine(fresh_redis.url)
        assert await redis.dbsize() == before
    assert report.kinds["rooms"].examples == ["chat:{old}"]
    assert report.kinds["not the chat's"].keys == 1
    text = shown(report)
    assert "rooms: 1 without an end (chat:{old})" in text
    assert "\x1b[31m" not in text


@pytest.mark.long
async def test_a_server_with_a_hundred_thousand_keys_is_examined_in_seconds(fresh_redis: Engine) -> None:
    fill = "for i = 1, 100000 do redis.call('XADD', 'chat:{r' .. i .. '}', '*', 'body', 'x') end"
    async with Redis.from_url(fresh_redis.url) as redis:
        filling: Any = redis.eval(fill, 0)
        await filling
    async with asyncio.timeout(60):
        report = await redis_doctor.examine(fresh_redis.url)
    rooms = report.kinds["rooms"]
    assert (rooms.keys, rooms.records, rooms.endless) == (100_000, 100_000, 100_000)
    assert rooms.measured == redis_doctor.SAMPLE
    assert rooms.estimated > 10_000_000


async def test_a_missing_permission_and_a_missing_server_are_reported(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        rules: Any = redis.execute_command("ACL", "SETUSER", "kim", "on", ">pw", "+@connection")  # type: ignore[no-untyped-call]  # redis-py's gap
        await rules
    with pytest.raises(SetupError, match="does not allow this user to inspect it"):
        await redis_doctor.examine(fresh_redis.url.replace("redis://", "redis://kim:pw@"))
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        await redis_doctor.examine("redis://127.0.0.1:1")


async def test_the_command_prints_the_report_as_text_and_json(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker:
        await broker.publish("chat:{cats}", b"x")
        status, output, errors = await run("doctor", "--redis", fresh_redis.url)
        assert (status, errors) == (0, "")
        assert "rooms" in output
        status, output, _ = await run("doctor", "--redis", fresh_redis.url, "--json")
        assert json.loads(output)["kinds"]["rooms"]["records"] == 1


@pytest.mark.parametrize(
    ("url", "status", "said"), [("http://h", 2, "not a Redis URL"), ("redis://127.0.0.1:1", 3, "does not answer")]
)
async def test_a_wrong_url_is_reported_in_one_line(url: str, status: int, said: str) -> None:
    got, output, errors = await run("doctor", "--redis", url)
    assert (got, output) == (status, "")
    assert said in errors
    assert errors.count("\n") == 1
