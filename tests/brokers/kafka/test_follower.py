"""The live end of Kafka's log: one consumer for all readers, each of which gets its own topic's records."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.kafka.partitions import place_of
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, reason_for_loss, topic


def connections() -> int:
    """How many connections this process has."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process().net_connections())


async def test_the_number_of_connections_does_not_depend_on_the_number_of_topics_read(kafka_engine: Engine) -> None:
    async with KafkaBroker(kafka_engine.url) as broker:
        names = [topic() for _ in range(40)]
        readers = [await broker.subscribe(name) for name in names[:1]]
        before = connections()
        readers += [await broker.subscribe(name) for name in names[1:]]
        assert connections() <= before
        for name in names:
            await broker.publish(name, name.encode())
        for name, reader in zip(names, readers, strict=True):
            assert await bodies(reader, 1) == [name.encode()]


async def test_a_slow_reader_goes_back_to_what_is_kept_and_delays_no_other(kafka_engine: Engine) -> None:
    name, other = topic(), topic("other")
    async with KafkaBroker(kafka_engine.url, log=topic("log"), partitions=1, max_waiting=100) as broker:
        slow, fast = await broker.subscribe(name), await broker.subscribe(name)
        sent = [b"%d" % n for n in range(3000)]
        following = asyncio.create_task(bodies(fast, len(sent)))
        await publish_all(broker, name, sent)
        await publish_all(broker, other, [b"in between"] * 500)
        assert await following == sent
        assert len(slow) < 700  # the rest waits in Kafka
        reading = asyncio.create_task(bodies(slow, 2 * len(sent)))
        await publish_all(broker, name, sent)
        assert await reading == sent * 2


async def test_a_reader_that_joins_a_busy_partition_starts_where_it_asked_to(kafka_engine: Engine) -> None:
    name, busy = topic(), topic("busy")
    async with KafkaBroker(kafka_engine.url, log=topic("log"), partitions=1) as broker:
        steady = await broker.subscribe(busy)
        writing = asyncio.create_task(publish_all(broker, busy, [b"x"] * 2000, at_once=20))
        ids = []
        for number in range(10):
            ids.append(await broker.publish(name, b"%d" % number))
            reader = await broker.subscribe(name, after=ids[0])
            live = await broker.subscribe(name)
            await broker.publish(name, b"live %d" % number)
            assert [each.body for each in await read(live, 1)] == [b"live %d" % number]
            assert (await bodies(reader, 2 * number + 1))[-1] == b"live %d" % number
            await asyncio.gather(reader.aclose(), live.aclose())
        await writing
        assert await bodies(steady, 2000) == [b"x"] * 2000


@pytest.mark.long
async def test_readers_end_when_the_log_gets_more_partitions_because_their_topic_may_have_moved(
    kafka_engine: Engine,
) -> None:
    log = topic("log")
    async with KafkaBroker(kafka_engine.url, log=log, partitions=2) as broker:
        await broker.publish(topic(), b"x")
        assert broker._log is not None
        grown = broker._log._replace(partitions=7)
        name = next(n for n in iter(topic, "") if place_of(n, broker._log).partition != place_of(n, grown).partition)
        last = await broker.publish(name, b"before")
        reader = await broker.subscribe(name)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
        await admin.start()
        await admin.create_partitions({log: NewPartitions(total_count=7)})
        await admin.close()
        await reason_for_loss(reader)
        again = await broker.subscribe(name)
        await broker.publish(name, b"after")
        assert await bodies(again, 1) == [b"after"]
        assert await broker.lost_after(name, last) == "0-0"  # an id of another partition
        assert [each.body for each in await broker.history(name)] == [b"after"]
