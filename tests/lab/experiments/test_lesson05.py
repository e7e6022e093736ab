"""Lesson 05's experiments on real engines: their results are what happened."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson05
from chatlab.lab.experiments.lesson05 import Candidate, Order, with_each
from chatlab.lab.experiments.lesson05_abilities import protocols
from chatlab.lab.runtime import Lab


def candidate(name: str, engine: Engine) -> Candidate:
    kind, broker = lesson05.BROKERS[name]
    assert kind == engine.kind
    return Candidate(name, lambda: broker(engine.url), engine)


MEMORY = Candidate("memory", MemoryBroker)


def test_each_kind_of_engine_is_found_or_shown_with_the_command_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1:1/")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KAFKA_URL", raising=False)

    found = lesson05.looked_for()

    assert found["rabbitmq"].startswith("✔")
    assert found["kafka"].startswith("✘ not here; to get it: ")
    assert "docker compose --profile kafka up -d" in found["kafka"]


@pytest.mark.usefixtures("each_redis")
async def test_the_line_up_has_a_candidate_for_every_broker_whose_engine_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lesson05, "KINDS", ("redis",))
    monkeypatch.setattr(lesson05, "BROKERS", {n: b for n, b in lesson05.BROKERS.items() if b[0] == "redis"})
    lab = Lab()
    try:
        candidates = await lesson05.line_up(lab)

        assert [each.name for each in candidates] == ["memory", "Redis Pub/Sub", "Redis Streams"]
        assert candidates[1].engine is candidates[2].engine
        assert candidates[1].ours
        assert (candidates[1].memory() or 0) > 1 << 20
        assert 0 < (candidates[1].seconds_to_start or 0) < 30

        assert candidates[1].engine is not None
        candidates[1].engine.kill()
        again = await lesson05.line_up(lab)

        assert again[1].engine is candidates[1].engine
        assert again[1].seconds_to_start == candidates[1].seconds_to_start
        assert await (await again[2].broker()).publish("after.the.kill", b"1")
    finally:
        await lab.stop_all()


async def test_an_experiment_runs_on_a_new_broker_of_each_candidate(redis_engine: Engine) -> None:
    seen: list[Broker] = []

    async def experiment(broker: Broker) -> bool:
        seen.append(broker)
        return broker.connected

    redis = candidate("Redis Streams", redis_engine)
    assert await with_each([MEMORY, redis], experiment, "trying") == {"memory": True, "Redis Streams": True}
    assert not any(broker.connected for broker in seen)
    assert MEMORY.used is None
    assert redis.used is None or redis.used >= 0


async def test_published_numbers_arrive_in_order() -> None:
    async with MemoryBroker() as broker:
        reader = await broker.subscribe("flood")
        await lesson05.publish_all(broker, "flood", 100)
        assert await lesson05.take(reader, 100) == [b"%d" % number for number in range(100)]
        assert await lesson05.count(reader, silence=0.01) == 0


async def test_publishing_for_some_seconds_ends_with_the_last_message() -> None:
    async with MemoryBroker() as broker:
        reader = await broker.subscribe("flood")
        await lesson05.publish_for(0.02, broker, "flood", last=b"end")
        bodies = [record.body for record in await reader.batch(1 << 30)]
        assert bodies == [*(b"%d" % number for number in range(len(bodies) - 1)), b"end"]
        assert len(bodies) > 1


async def test_publishing_one_at_a_time_waits_for_each_confirmation() -> None:
    broker = OneAtATime()
    await lesson05.publish_for(0.02, broker, "flood", in_flight=1)
    assert broker.most == 1
    await lesson05.publish_for(0.02, broker, "flood", in_flight=8)
    assert broker.most == 8


class OneAtATime(MemoryBroker):
    """Counts how many messages are on their way at once."""

    now = most = 0

    async def publish(self, topic: str, body: bytes) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return ""


async def test_counting_stops_at_the_given_number() -> None:
    async with MemoryBroker() as broker:
        reader = await broker.subscribe("few")
        await lesson05.publish_all(broker, "few", 3)
        assert await lesson05.count(reader, at_most=3, silence=60) == 3


@pytest.mark.parametrize("name", ["Redis Pub/Sub", "Redis Streams"])
async def test_several_servers_read_every_message_in_order(name: str, redis_engine: Engine) -> None:
    run = await lesson05.fan_out(candidate(name, redis_engine), 4, messages=50)

    assert (run.readers, run.messages, run.complete) == (4, 50, True)
    assert run.each is None or 0 < run.each < 0.01


async def test_all_readers_of_redis_streams_see_one_order(redis_engine: Engine) -> None:
    assert await lesson05.order(candidate("Redis Streams", redis_engine), messages=50) == Order(own=True, shared=True)


async def test_after_a_kill_streams_have_every_message_and_pubsub_and_memory_none(fresh_redis: Engine) -> None:
    if fresh_redis.pid is None:
        pytest.skip("the engine was not started here, so it cannot be killed")
    candidates = [MEMORY, candidate("Redis Pub/Sub", fresh_redis), candidate("Redis Streams", fresh_redis)]
    down: list[str] = []

    left = await lesson05.kept_after_kill(candidates, messages=20, while_down=lambda engine: down.append(engine.kind))

    assert left == {"memory": 0, "Redis Pub/Sub": 0, "Redis Streams": 20}
    assert down == ["redis"]


@pytest.mark.long
async def test_after_a_kill_rabbitmq_and_kafka_have_every_confirmed_message(
    rabbitmq_engine: Engine, kafka_engine: Engine
) -> None:
    if rabbitmq_engine.pid is None or kafka_engine.pid is None:
        pytest.skip("the engine was not started here, so it cannot be killed")
    candidates = [candidate("RabbitMQ", rabbitmq_engine), candidate("Kafka", kafka_engine)]

    assert await lesson05.kept_after_kill(candidates, messages=50) == {"RabbitMQ": 50, "Kafka": 50}


async def test_redis_answers_only_in_its_own_protocol(redis_engine: Engine) -> None:
    candidates = [MEMORY, candidate("Redis Streams", redis_engine)]

    assert await protocols(candidates) == {"memory": [], "Redis Streams": ["Redis's own (RESP)"]}


async def test_kafka_answers_only_in_its_own_protocol(kafka_engine: Engine) -> None:
    assert await protocols([candidate("Kafka", kafka_engine)]) == {"Kafka": ["Kafka's own"]}


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("rabbitmq_engine")  # skips, and names the command to get one
async def test_rabbitmq_speaks_more_protocols_after_a_restart_with_plugins() -> None:
    from chatlab.lab.experiments.lesson05_abilities import enable_protocols

    async with await engines.start("rabbitmq") as engine:
        if engine.pid is None:
            pytest.skip("the engine was not started here, so it cannot be changed")
        rabbitmq = candidate("RabbitMQ", engine)
        assert await protocols([rabbitmq]) == {"RabbitMQ": ["AMQP 0-9-1"]}

        engine.kill()
        enable_protocols(engine)
        await engine.restart()
        async with asyncio.timeout(30):
            while len((await protocols([rabbitmq]))["RabbitMQ"]) < 3:
                pass  # a plugin's port opens a moment after the engine's port

        assert {"AMQP 0-9-1", "MQTT", "STOMP"} <= set((await protocols([rabbitmq]))["RabbitMQ"])
