"""What the broker on RabbitMQ does beyond the port: patterns, and poison."""

from __future__ import annotations

import aio_pika
import pytest

from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.errors import BrokerError
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, read, topic


async def test_a_pattern_reads_every_topic_that_matches(rabbitmq_engine: Engine) -> None:
    async with RabbitMQBroker(rabbitmq_engine.url) as broker:
        house = topic()
        one_word = await broker.subscribe_matching(f"{house}.*")
        any_words = await broker.subscribe_matching(f"{house}.#")
        for name in (f"{house}.방", f"{house}.방.sub", f"other-{house}.방", house):
            await broker.publish(name, name.encode())
        await broker.publish(f"{house}.end", b"end")
        assert await bodies(one_word, 2) == [f"{house}.방".encode(), b"end"]
        read_from = [record.topic for record in await read(any_words, 4)]
        assert read_from == [f"{house}.방", f"{house}.방.sub", house, f"{house}.end"]


@pytest.mark.parametrize("bad", ["room.*", "#", "a.#.b"])
async def test_a_topic_that_would_be_a_pattern_is_refused(rabbitmq_engine: Engine, bad: str) -> None:
    async with RabbitMQBroker(rabbitmq_engine.url) as broker:
        with pytest.raises(BrokerError, match="not a valid topic"):
            await broker.publish(bad, b"x")
        with pytest.raises(BrokerError, match="not a valid topic"):
            await broker.subscribe(bad)


async def test_a_record_that_always_fails_is_set_aside(rabbitmq_engine: Engine) -> None:
    name = topic("t").replace("-", ".")
    async with RabbitMQBroker(rabbitmq_engine.url, tries=3) as founder:
        await founder.join(name, "audit", "a")
        await founder.publish(name, b"poison")
    for _ in range(2):  # the founder had it first
        async with RabbitMQBroker(rabbitmq_engine.url, tries=3) as broker:
            assert await bodies(await broker.join(name, "audit", "a"), 1) == [b"poison"]
    connection = await aio_pika.connect(rabbitmq_engine.url)
    async with connection:
        channel = await connection.channel()
        aside = await channel.get_queue(f"{name}:audit:set-aside")
        message = await aside.get(timeout=10)
        assert message is not None
        assert message.body == b"poison"
        await message.ack()
