"""What the engines can do, on real ones."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson05, lesson05_abilities
from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.lesson05_abilities import (
    BY_KEY,
    EVERYBODY,
    PAST,
    PATTERN,
    PROTOCOLS_BY_KEY,
    RICH,
    ROUTES,
    TRIALS,
    WORKERS,
    late_readers,
    protocols,
    rich,
    routes,
)

MEMORY = Candidate("memory", MemoryBroker)
NONE_OF_THEM = dict.fromkeys(RICH, False)


def candidate(name: str, engine: Engine) -> Candidate:
    __, broker = lesson05.BROKERS[name]
    return Candidate(name, lambda: broker(engine.url), engine)


def test_every_ability_has_a_key_for_files_and_every_pattern_a_trial() -> None:
    assert set(BY_KEY.values()) == {*ROUTES, *RICH}
    assert set(TRIALS) == set(RICH)


async def test_memory_reaches_all_readers_and_keeps_history() -> None:
    assert await routes(MEMORY) == {EVERYBODY: True, WORKERS: False, PATTERN: False, PAST: True}
    assert await rich(MEMORY) == NONE_OF_THEM
    assert await late_readers(MEMORY, messages=10) == [10, 10]


# --- Redis -----------------------------------------------------------------------------------------------------------


async def test_pubsub_matches_patterns_and_gives_every_message_to_everybody_who_listens(redis_engine: Engine) -> None:
    pubsub = candidate("Redis Pub/Sub", redis_engine)

    assert await routes(pubsub) == {EVERYBODY: True, WORKERS: False, PATTERN: True, PAST: False}
    assert await rich(pubsub) == NONE_OF_THEM


async def test_streams_share_work_and_keep_the_past_and_have_no_patterns(redis_engine: Engine) -> None:
    streams = candidate("Redis Streams", redis_engine)

    assert await routes(streams) == {EVERYBODY: True, WORKERS: True, PATTERN: False, PAST: True}
    assert await rich(streams) == NONE_OF_THEM


# --- RabbitMQ --------------------------------------------------------------------------------------------------------


async def test_rabbitmq_has_every_route_and_every_rich_pattern(rabbitmq_engine: Engine) -> None:
    rabbitmq = candidate("RabbitMQ", rabbitmq_engine)

    assert await routes(rabbitmq) == dict.fromkeys(ROUTES, True)
    assert await rich(rabbitmq) == dict.fromkeys(RICH, True)


# --- Kafka -----------------------------------------------------------------------------------------------------------


async def test_kafka_has_every_route_and_no_rich_pattern(kafka_engine: Engine) -> None:
    kafka = candidate("Kafka", kafka_engine)

    assert await routes(kafka) == dict.fromkeys(ROUTES, True)
    assert await rich(kafka) == NONE_OF_THEM


# --- Protocols -------------------------------------------------------------------------------------------------------


async def foreign(kind: str, variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Return an engine that is named by URL."""
    monkeypatch.setenv(variable, url)
    engine = await engines.start(kind)
    assert engine.pid is None
    return engine


async def test_an_engine_named_by_url_answers_in_its_own_protocol(
    redis_on_path: Engine, kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = await foreign("redis", "REDIS_URL", redis_on_path.url, monkeypatch)
    kafka = await foreign("kafka", "KAFKA_URL", kafka_engine.url, monkeypatch)
    spoken = await protocols([candidate("Redis Streams", redis), candidate("Kafka", kafka)])

    assert spoken == {"Redis Streams": [PROTOCOLS_BY_KEY["resp"]], "Kafka": [PROTOCOLS_BY_KEY["kafka"]]}


async def test_a_rabbitmq_named_by_url_is_not_said_to_speak_amqp_alone_because_its_plugins_were_not_tried(
    rabbitmq_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq = candidate("RabbitMQ", await foreign("rabbitmq", "AMQP_URL", rabbitmq_engine.url, monkeypatch))

    monkeypatch.setattr(lesson05_abilities, "PLUGIN_PORTS", [1])
    assert await protocols([rabbitmq]) == {}

    async with await stomp_server() as server:
        monkeypatch.setattr(lesson05_abilities, "PLUGIN_PORTS", [server.sockets[0].getsockname()[1]])
        assert await protocols([rabbitmq]) == {"RabbitMQ": ["AMQP 0-9-1", "STOMP"]}


async def stomp_server() -> asyncio.Server:
    """Start a server that answers everything as a STOMP server answers CONNECT."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(100)).startswith(b"CONNECT\n"):
            writer.write(b"CONNECTED\nversion:1.2\n\n\x00")
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)
