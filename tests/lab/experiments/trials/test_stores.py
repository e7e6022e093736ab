"""Stores keep what is published to them, on real engines."""

from __future__ import annotations

import pytest

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.trials.stores import QueueStore, Store, StreamStore, TopicStore


async def filled(store: Store) -> tuple[int, int]:
    """Return how many of ten messages are confirmed, and how many are there."""
    await store.create()
    async with store.published(10) as confirmed:
        pass
    return confirmed, await store.left()


async def test_a_stream_of_redis(redis_engine: Engine) -> None:
    assert await filled(StreamStore(redis_engine.url)) == (10, 10)


@pytest.mark.parametrize("type_", ["classic", "quorum", "stream"])
async def test_a_queue_of_rabbitmq(type_: str, rabbitmq_engine: Engine) -> None:
    assert await filled(QueueStore(rabbitmq_engine.url, type_)) == (10, 10)


async def test_without_confirms_nothing_is_confirmed(rabbitmq_engine: Engine, kafka_engine: Engine) -> None:
    assert await filled(QueueStore(rabbitmq_engine.url, "classic", confirms=False)) == (0, 10)
    assert await filled(TopicStore(kafka_engine.url, 0)) == (0, 10)


@pytest.mark.parametrize("acks", [1, "all"])
async def test_a_topic_of_kafka(acks: int | str, kafka_engine: Engine) -> None:
    assert await filled(TopicStore(kafka_engine.url, acks, {"flush.messages": "1"})) == (10, 10)


async def test_a_store_that_nothing_was_published_to_is_empty(rabbitmq_engine: Engine, kafka_engine: Engine) -> None:
    for store in (QueueStore(rabbitmq_engine.url, "classic"), TopicStore(kafka_engine.url, 1)):
        await store.create()
        assert await store.left() == 0


async def test_a_queue_that_does_not_exist_has_nothing_left(
    rabbitmq_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatlab.lab.experiments.trials.stores.PATIENCE", 0.2)

    assert await QueueStore(rabbitmq_engine.url, "stream").left() == 0
