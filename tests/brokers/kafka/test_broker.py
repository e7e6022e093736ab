"""What the broker on Kafka does beyond the port: a log that is trimmed, or closed while it is looked up."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.errors import BrokerClosed, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, read, topic


async def test_a_reader_overtaken_by_trimming_ends_with_subscription_lost(kafka_engine: Engine) -> None:
    name = topic()
    async with KafkaBroker(kafka_engine.url, log=name, partitions=1) as broker:
        ids = [await broker.publish(name, b"%d" % n) for n in range(10)]
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
        await admin.start()
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=5)})
        await admin.close()
        assert await broker.oldest(name) == ids[5]
        assert [each.id for each in await broker.history(name)] == ids[5:]
        reader = await broker.subscribe(name, after=ids[1])
        with pytest.raises(SubscriptionLost, match="trimmed past its reader"):
            await read(reader, 1)
        assert await bodies(await broker.subscribe(name, after=ids[4]), 5) == [b"5", b"6", b"7", b"8", b"9"]


@pytest.mark.parametrize("call", ["subscribe", "publish"])
async def test_a_broker_closed_while_it_looks_a_topic_up_says_that_it_is_closed(
    kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    broker = KafkaBroker(kafka_engine.url)
    await broker.start()
    find = broker._find

    async def close_meanwhile() -> object:
        found = await find()
        await broker.aclose()
        return found

    monkeypatch.setattr(broker, "_find", close_meanwhile)
    with pytest.raises(BrokerClosed):
        await (broker.subscribe(topic()) if call == "subscribe" else broker.publish(topic(), b"x"))
