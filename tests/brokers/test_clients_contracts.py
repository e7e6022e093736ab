"""What chatlab uses of aio-pika and aiokafka that they do not document: if this fails, a new version has changed it."""

from __future__ import annotations

import aio_pika
import pytest
from aiokafka import AIOKafkaProducer

from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import topic

pytestmark = pytest.mark.long


async def test_aio_pika_exposes_the_underlying_channel_which_acknowledges_multiple_deliveries(
    rabbitmq_engine: Engine,
) -> None:
    async with await aio_pika.connect(rabbitmq_engine.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(topic(), auto_delete=True)
        for number in range(3):
            await channel.default_exchange.publish(aio_pika.Message(b"%d" % number), queue.name)
        messages = [await queue.get(timeout=5) for _ in range(3)]
        tag = messages[1].delivery_tag
        assert tag is not None
        beneath = await channel.get_underlay_channel()
        await beneath.basic_ack(tag, multiple=True)
        await beneath.basic_recover(requeue=True)
        last = await queue.get(timeout=5)
        assert (last.body, last.redelivered) == (b"2", True)
        assert await queue.get(fail=False) is None
        await last.ack()


async def test_aiokafka_lets_a_producer_ask_for_all_metadata(kafka_engine: Engine) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
    await producer.start()
    try:
        metadata = await producer.client.fetch_all_metadata()
        assert metadata.brokers()
    finally:
        await producer.stop()
