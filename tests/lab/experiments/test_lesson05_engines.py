"""Throughput at the engine: the tools run for real, on few messages, and a missing tool gives no figure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.errors import EngineMissing, SetupError
from chatlab.lab.engines import load_tools
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson05, lesson05_engines
from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.lesson05_engines import at_the_engine, compared, in_python
from chatlab.lab.experiments.repeats import Repeats
from tests.support import require


def candidate(name: str, engine: Engine) -> Candidate:
    __, broker = lesson05.BROKERS[name]
    return Candidate(name, lambda: broker(engine.url), engine)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson05_engines, "REDIS_MESSAGES", 20_000)
    monkeypatch.setattr(lesson05_engines, "RABBITMQ_WINDOWS", (0, 1))
    monkeypatch.setattr(lesson05_engines, "SECONDS", 1)


@pytest.fixture
def tools() -> None:
    try:
        load_tools.java(load_tools.KAFKA)
    except EngineMissing as absent:
        require.missing("load-tools", absent.remedy)


@pytest.fixture
def benchmark() -> None:
    try:
        load_tools.redis_benchmark()
    except EngineMissing as absent:
        require.missing("redis-benchmark", absent.remedy)


@pytest.mark.usefixtures("few", "benchmark")
@pytest.mark.parametrize("name", ["Redis Pub/Sub", "Redis Streams"])
async def test_redis_takes_thousands_of_messages_a_second_and_keeps_none_of_the_trials(
    name: str, redis_engine: Engine
) -> None:
    found = await at_the_engine(candidate(name, redis_engine), 2)

    assert found is not None
    assert len(found.values) == 2
    assert found.low > 1000
    async with Redis.from_url(redis_engine.url) as redis:
        assert await redis.keys("*flood*") == []


async def test_redis_benchmark_that_takes_its_connection_for_lost_runs_again_at_most_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, runs = tmp_path / "redis-benchmark", tmp_path / "runs"
    monkeypatch.setattr(load_tools, "redis_benchmark", lambda: str(tool))
    tool.write_text(
        f'#!/bin/sh\necho >>{runs}\n[ $(wc -l <{runs}) -ge $LAST ] || {{ echo "All clients disconnected"; exit 1; }}\n'
        'printf "test,rps\\nXADD,5000\\n"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("LAST", "3")
    assert await lesson05_engines.redis_benchmark("redis://127.0.0.1:1", "XADD") == 5000
    runs.unlink()
    monkeypatch.setenv("LAST", "4")
    with pytest.raises(SetupError, match="All clients disconnected"):
        await lesson05_engines.redis_benchmark("redis://127.0.0.1:1", "XADD")
    assert runs.read_text().count("\n") == 3


@pytest.mark.usefixtures("few", "benchmark")
async def test_the_python_client_takes_turns_with_the_tool_and_its_share_is_a_ratio_for_each_round(
    redis_on_path: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await compared(candidate("Redis Streams", redis_on_path), 2)

    assert found is not None
    assert found.ratio == Repeats(tuple(c / e for c, e in zip(found.client.values, found.engine.values, strict=True)))
    assert all(0 < share < 1 for share in found.ratio.values)


@pytest.mark.long
@pytest.mark.usefixtures("few", "tools")
async def test_kafka_takes_records_from_its_own_producer(kafka_engine: Engine) -> None:
    found = await at_the_engine(candidate("Kafka", kafka_engine), 1)

    assert found is not None
    assert found.low > 100


@pytest.mark.long
@pytest.mark.usefixtures("few", "tools")
async def test_rabbitmq_confirms_messages_to_its_own_tool_also_on_a_virtual_host(
    rabbitmq_engine: Engine, vhost_url: str
) -> None:
    for url in (rabbitmq_engine.url, vhost_url):
        assert await lesson05_engines.rabbitmq(url) > 1


@pytest.mark.long
async def test_rabbitmq_stores_what_the_python_client_publishes(
    rabbitmq_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: list[AbstractQueue] = []
    stored = lesson05_engines.stored

    @contextlib.asynccontextmanager
    async def counted(url: str, topic: str) -> AsyncIterator[AbstractQueue]:
        async with stored(url, topic) as queue:
            yield queue
            sizes.append((await queue.declare()).message_count or 0)
            queues.append(queue)

    sizes: list[int] = []
    monkeypatch.setattr(lesson05_engines, "stored", counted)
    rate = await in_python(candidate("RabbitMQ", rabbitmq_engine), 0.5)

    assert sizes[0] >= 0.4 * rate
    async with await aio_pika.connect(rabbitmq_engine.url) as connection:
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).get_queue(queues[0].name)


async def test_memory_has_no_engine_to_measure() -> None:
    assert await at_the_engine(Candidate("memory", MemoryBroker)) is None
    assert await compared(Candidate("memory", MemoryBroker)) is None


async def test_a_missing_tool_gives_no_figure(
    redis_on_path: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert await at_the_engine(candidate("Redis Streams", redis_on_path)) is None
    assert await at_the_engine(Candidate("Kafka", MemoryBroker, redis_on_path)) is None


async def test_a_tool_that_fails_is_reported_with_what_it_says() -> None:
    with pytest.raises(SetupError, match="sh measured nothing: out of luck"):
        await lesson05_engines.run(["sh", "-c", "echo out of luck; exit 3"])
    with pytest.raises(SetupError, match="echo measured nothing: no figure"):
        await lesson05_engines.warmed_up(["echo", "no figure"], r"(\d+) a second", (0, 1))


async def test_the_figures_of_the_first_windows_do_not_count_and_the_tool_is_ended_after_the_last() -> None:
    tool = ["sh", "-c", "for each in 1 2 3,000 5,000 9; do echo $each a second; done; exec sleep 60"]

    assert await asyncio.wait_for(lesson05_engines.warmed_up(tool, r"([\d,]+) a second", (2, 2)), 20) == 4000


async def test_a_dead_engine_is_an_error_and_not_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_tools, "redis_benchmark", lambda: "false")
    with pytest.raises(SetupError, match="false measured nothing"):
        await lesson05_engines.redis_benchmark("redis://127.0.0.1:1", "PING")


async def test_the_python_client_publishes_for_the_time_it_is_given() -> None:
    assert await in_python(Candidate("memory", MemoryBroker), 0.1) > 100
