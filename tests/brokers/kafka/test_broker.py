"""What the broker on Kafka does beyond the port: one offset for a group, and a log that is trimmed."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from chatlab.brokers.kafka.broker import KafkaBroker, identifier, offset
from chatlab.brokers.names import escaped
from chatlab.errors import BrokerClosed, BrokerError, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, topic


def test_an_id_is_the_offset_counted_from_one() -> None:
    assert [identifier(at) for at in (0, 1, 41)] == ["1-0", "2-0", "42-0"]
    assert [offset(identifier(at)) for at in (0, 1, 41)] == [0, 1, 41]


async def test_records_acknowledged_out_of_order_are_committed_with_the_earlier_ones(kafka_engine: Engine) -> None:
    name = topic()
    async with KafkaBroker(kafka_engine.url, takeover_after=1.5) as broker:
        member = await broker.join(name, "audit", "a")
        await publish_all(broker, name, [b"1", b"2", b"3"], at_once=1)
        first, second, third = await read(member, 3)
        await member.ack(third)
        await member.ack(first)
    async with KafkaBroker(kafka_engine.url, takeover_after=1.5) as broker:
        member = await broker.join(name, "audit", "b")
        assert await read(member, 2) == [second, third]  # the third again: the second was not done


async def test_a_reader_overtaken_by_trimming_ends_with_subscription_lost(kafka_engine: Engine) -> None:
    name = topic()
    async with KafkaBroker(kafka_engine.url) as broker:
        ids = [await broker.publish(name, b"%d" % n) for n in range(10)]
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
        await admin.start()
        await admin.delete_records({TopicPartition(escaped(name, 249), 0): RecordsToDelete(before_offset=5)})
        await admin.close()
        assert await broker.oldest(name) == ids[5]
        assert [each.id for each in await broker.history(name)] == ids[5:]
        reader = await broker.subscribe(name, after=ids[1])
        with pytest.raises(SubscriptionLost, match="trimmed past its reader"):
            await read(reader, 1)
        assert await bodies(await broker.subscribe(name, after=ids[4]), 5) == [b"5", b"6", b"7", b"8", b"9"]


async def test_a_topic_that_kafka_cannot_name_is_refused(kafka_engine: Engine) -> None:
    async with KafkaBroker(kafka_engine.url) as broker:
        for bad in ("", "방" * 84):
            with pytest.raises(BrokerError, match="not a valid topic"):
                await broker.publish(bad, b"x")


@pytest.mark.parametrize("call", ["subscribe", "publish"])
async def test_a_broker_closed_while_it_looks_a_topic_up_says_that_it_is_closed(
    kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    broker = KafkaBroker(kafka_engine.url)
    await broker.start()
    look_up = broker._look_up

    async def close_meanwhile(name: str) -> object:
        found = await look_up(name)
        await broker.aclose()
        return found

    monkeypatch.setattr(broker, "_look_up", close_meanwhile)
    with pytest.raises(BrokerClosed):
        await (broker.subscribe(topic()) if call == "subscribe" else broker.publish(topic(), b"x"))
