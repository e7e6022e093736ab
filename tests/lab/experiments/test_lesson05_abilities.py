"""What the engines can do, on real ones; and each trial says no where what it depends on is left out."""

from __future__ import annotations

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson05
from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.lesson05_abilities import (
    BY_KEY,
    DEAD_LETTER,
    EVERYBODY,
    EXPIRY,
    LATER,
    PAST,
    PATTERN,
    RICH,
    ROUTES,
    TRIALS,
    URGENT,
    WORKERS,
    late_readers,
    rich,
    routes,
)
from chatlab.lab.experiments.lesson05_clients import Kafka, PubSub, RabbitMQ, Streams

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


async def test_two_late_readers_of_a_stream_get_all_of_it_and_two_readers_from_its_end_nothing(
    redis_engine: Engine,
) -> None:
    assert await Streams(redis_engine.url).late_readers(100, 2) == [100, 100]
    assert await Streams(redis_engine.url, after="$").late_readers(10, 2) == [0, 0]


async def test_sharded_pubsub_reaches_everybody_on_a_redis_of_version_7(redis_engine: Engine) -> None:
    sharded = PubSub(redis_engine.url, sharded=True)

    assert await sharded.reaches_everybody() is knows_sharding(redis_engine)
    assert not await sharded.reaches_everybody(subscribe="SUBSCRIBE")


async def test_sharded_channels_have_no_patterns(redis_on_path: Engine) -> None:
    assert await PubSub(redis_on_path.url).matches()
    assert not await PubSub(redis_on_path.url, sharded=True).matches()


def knows_sharding(engine: Engine) -> bool:
    return int(engine.version.split()[-1].split(".")[0]) >= 7


# --- RabbitMQ --------------------------------------------------------------------------------------------------------


async def test_rabbitmq_has_every_route_and_every_rich_pattern(rabbitmq_engine: Engine) -> None:
    rabbitmq = candidate("RabbitMQ", rabbitmq_engine)

    assert await routes(rabbitmq) == dict.fromkeys(ROUTES, True)
    assert await rich(rabbitmq) == dict.fromkeys(RICH, True)


async def test_two_late_readers_of_a_stream_queue_get_all_and_of_other_queues_only_the_first_does(
    rabbitmq_engine: Engine,
) -> None:
    url = rabbitmq_engine.url

    assert await RabbitMQ(url).late_readers(100, 2) == [100, 100]
    assert await RabbitMQ(url, late="classic").late_readers(100, 2) == [100, 0]
    assert await RabbitMQ(url, late="quorum").late_readers(100, 2) == [100, 0]


async def test_a_quorum_or_classic_queue_shares_work_and_a_stream_queue_does_not(rabbitmq_engine: Engine) -> None:
    shared = {type_: await RabbitMQ(rabbitmq_engine.url, work=type_).shares_work() for type_ in QUEUES}

    assert shared == {"quorum": True, "classic": True, "stream": False}


QUEUES = ("quorum", "classic", "stream")


async def test_a_queue_of_rabbitmq_without_rules_has_none_of_the_rich_patterns(rabbitmq_engine: Engine) -> None:
    plain = RabbitMQ(rabbitmq_engine.url, rules=False)
    found = {}
    for name, trial in TRIALS.items():
        async with plain.post() as post:
            found[name] = await trial(post)

    assert found == {URGENT: False, EXPIRY: False, LATER: False, DEAD_LETTER: False}


# --- Kafka -----------------------------------------------------------------------------------------------------------


async def test_kafka_has_every_route_and_no_rich_pattern(kafka_engine: Engine) -> None:
    kafka = candidate("Kafka", kafka_engine)

    assert await routes(kafka) == dict.fromkeys(ROUTES, True)
    assert await rich(kafka) == NONE_OF_THEM


async def test_two_workers_of_kafka_work_at_once_with_two_partitions_and_not_with_one(kafka_engine: Engine) -> None:
    assert await Kafka(kafka_engine.url, partitions=2).shares_work()
    assert not await Kafka(kafka_engine.url, partitions=1).shares_work()


async def test_two_late_readers_of_kafka_get_all_from_the_earliest_offset_and_nothing_from_the_latest(
    kafka_engine: Engine,
) -> None:
    assert await Kafka(kafka_engine.url).late_readers(100, 2) == [100, 100]
    assert await Kafka(kafka_engine.url, offset="latest").late_readers(10, 2) == [0, 0]
