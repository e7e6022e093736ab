"""Each trial on a real engine says no where what it depends on is left out."""

from __future__ import annotations

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.lesson05_abilities import DEAD_LETTER, EXPIRY, LATER, TRIALS, URGENT
from chatlab.lab.experiments.trials.clients import Kafka, PubSub, RabbitMQ, Streams

QUEUES = ("quorum", "classic", "stream")


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


async def test_a_queue_of_rabbitmq_without_rules_has_none_of_the_rich_patterns(rabbitmq_engine: Engine) -> None:
    plain = RabbitMQ(rabbitmq_engine.url, rules=False)
    found = {}
    for name, trial in TRIALS.items():
        async with plain.post() as post:
            found[name] = await trial(post)

    assert found == {URGENT: False, EXPIRY: False, LATER: False, DEAD_LETTER: False}


async def test_two_workers_of_kafka_work_at_once_with_two_partitions_and_not_with_one(kafka_engine: Engine) -> None:
    assert await Kafka(kafka_engine.url, partitions=2).shares_work()
    assert not await Kafka(kafka_engine.url, partitions=1).shares_work()


async def test_two_late_readers_of_kafka_get_all_from_the_earliest_offset_and_nothing_from_the_latest(
    kafka_engine: Engine,
) -> None:
    assert await Kafka(kafka_engine.url).late_readers(100, 2) == [100, 100]
    assert await Kafka(kafka_engine.url, offset="latest").late_readers(10, 2) == [0, 0]
