"""What Kafka takes away from a reader or a member: topics, the records in them, the place to go on from."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import LeaderNotAvailableError

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.kafka.partitions import identifier
from chatlab.brokers.kafka.topics import describe, described, fetching_failed
from chatlab.brokers.names import escaped
from chatlab.brokers.port import Reader
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, read, reason_for_loss, topic, until

pytestmark = pytest.mark.long

Begin = Callable[[KafkaBroker, str], Awaitable[Reader]]

WAYS: dict[str, Begin] = {
    "reader": lambda broker, name: broker.subscribe(name),
    "member of a group": lambda broker, name: broker.join(name, "audit", "a"),
}
every_way = pytest.mark.parametrize("begin", WAYS.values(), ids=list(WAYS))


def on(engine: Engine, name: str, **options: Any) -> KafkaBroker:
    """A broker whose log has the topic's name and one partition, so that nothing else is in it."""
    return KafkaBroker(engine.url, log=name, partitions=1, **options)


@asynccontextmanager
async def operator(engine: Engine) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=engine.url.removeprefix("kafka://"))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def delete_topic(engine: Engine, name: str) -> None:
    """Delete a topic, and see it gone."""
    async with operator(engine) as admin:
        await admin.delete_topics([escaped(name, 249)])
        while await describe(admin._client, [escaped(name, 249)]):
            pass


async def delete_records(engine: Engine, name: str, before: int) -> None:
    """What the retention of a topic does, at once."""
    async with operator(engine) as admin:
        await admin.delete_records({TopicPartition(escaped(name, 249), 0): RecordsToDelete(before_offset=before)})


@every_way
async def test_a_reader_of_a_deleted_topic_ends_and_can_subscribe_again(kafka_engine: Engine, begin: Begin) -> None:
    name = topic()
    async with on(kafka_engine, name, takeover_after=1.5) as broker:
        reader = await begin(broker, name)
        await broker.publish(name, b"before")
        assert await bodies(reader, 1) == [b"before"]
        await delete_topic(kafka_engine, name)
        await reason_for_loss(reader)
        await reader.aclose()
        again = await begin(broker, name)
        await broker.publish(name, b"again")
        assert (await bodies(again, 1))[-1] == b"again"


@every_way
async def test_a_recreated_topic_that_has_grown_is_not_read_from_an_old_offset(
    kafka_engine: Engine, begin: Begin
) -> None:
    name = topic()
    async with on(kafka_engine, name, takeover_after=1.5) as broker, on(kafka_engine, name) as other:
        reader = await begin(broker, name)
        ids = [await broker.publish(name, b"old %d" % n) for n in range(3)]
        assert await bodies(reader, 3) == [b"old 0", b"old 1", b"old 2"]
        await delete_topic(kafka_engine, name)
        await publish_all(other, name, [b"new %d" % n for n in range(10)], at_once=1)
        await reason_for_loss(reader)
        assert "created again" in await reason_for_loss(await broker.subscribe(name, after=ids[2]))
        assert await broker.lost_after(name, ids[2]) == "0-0"
        assert len(await broker.history(name, after=ids[2])) == 10
        (newest,) = await broker.history(name, limit=1)
        assert broker.is_before(ids[2], newest.id)
        assert not broker.is_before(newest.id, ids[2])


async def test_an_offset_beyond_the_end_raises_even_if_the_log_grows_past_it(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name) as broker:
        ids = [await broker.publish(name, body) for body in (b"1", b"2")]
        assert await broker.lost_after(name, identifier(5)) == ids[1]
        reader = await broker.subscribe(name, after=identifier(5))
        await publish_all(broker, name, [b"x"] * 10)
        assert "ends at 2" in await reason_for_loss(reader)
        with pytest.raises(SubscriptionLost) as caught:
            await reader.batch()
        assert (caught.value.resume, caught.value.restarted) == (ids[1], True)
        assert await bodies(await broker.subscribe(name, after=identifier(1)), 10) == [b"x"] * 10


async def test_an_offset_before_the_beginning_raises_when_reading_starts(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name) as broker:
        ids = [await broker.publish(name, b"%d" % n) for n in range(10)]
        await delete_records(kafka_engine, name, before=5)
        assert "trimmed past its reader, by 3 records" in await reason_for_loss(
            await broker.subscribe(name, after=ids[1])
        )
        assert await broker.lost_after(name, ids[1]) == ids[4]
        assert await broker.lost_after(name, ids[4]) is None
        assert await bodies(await broker.subscribe(name, after=ids[4]), 5) == [b"5", b"6", b"7", b"8", b"9"]
        assert await bodies(await broker.subscribe(name, after="0-0"), 5) == [b"5", b"6", b"7", b"8", b"9"]


async def test_a_stalled_reader_overtaken_by_retention_ends_with_subscription_lost(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name, max_waiting=5) as broker:
        stalled = await broker.subscribe(name)
        ids = [await broker.publish(name, b"x" * 500_000) for _ in range(30)]  # more than waits in memory
        await delete_records(kafka_engine, name, before=25)
        got: list[str] = []
        async with asyncio.timeout(15):
            with pytest.raises(SubscriptionLost, match="trimmed"):
                while batch := await stalled.batch():
                    got += [record.id for record in batch]
        assert got == ids[: len(got)]  # no hole before the end


async def test_a_group_whose_work_was_deleted_by_retention_gets_subscription_lost(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name, takeover_after=1.5) as broker:
        await (await broker.join(name, "audit", "a")).aclose()
        await publish_all(broker, name, [b"%d" % n for n in range(10)], at_once=1)
        await delete_records(kafka_engine, name, before=5)
        assert "trimmed past its reader, by 5 records" in await reason_for_loss(await broker.join(name, "audit", "b"))
        assert await bodies(await broker.join(name, "audit", "c"), 5) == [b"5", b"6", b"7", b"8", b"9"]


async def test_a_group_resumes_in_a_recreated_topic(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name, takeover_after=1.5) as broker:
        member = await broker.join(name, "audit", "a")
        await publish_all(broker, name, [b"1", b"2", b"3"], at_once=1)
        for record in await read(member, 3):
            await member.ack(record)
        await delete_topic(kafka_engine, name)
        await reason_for_loss(member)
        await member.aclose()
        await broker.publish(name, b"while nobody was a member")
        again = await broker.join(name, "audit", "a")
        if again.closed:  # its place in the old topic was still written down: it is told of that, too
            await reason_for_loss(again)
            again = await broker.join(name, "audit", "a")
        assert await bodies(again, 1) == [b"while nobody was a member"]


async def test_an_engine_that_has_lost_its_data_is_noticed_by_its_readers(kafka_engine: Engine) -> None:
    assert kafka_engine.folder is not None
    name = topic()
    async with on(kafka_engine, name) as broker:
        reader = await broker.subscribe(name)
        ids = [await broker.publish(name, b"%d" % n) for n in range(3)]
        assert await bodies(reader, 3) == [b"0", b"1", b"2"]
        kafka_engine.kill()
        shutil.rmtree(kafka_engine.folder / "data")
        kafka_engine._prepared = False  # it is to be formatted again
        await kafka_engine.restart()
        async with on(kafka_engine, name) as other:
            await publish_all(other, name, [b"new"] * 10)
        await reason_for_loss(reader)
        assert "created again" in await reason_for_loss(await broker.subscribe(name, after=ids[2]))
        again = await broker.subscribe(name)
        await broker.publish(name, b"again")
        assert await bodies(again, 1) == [b"again"]


async def test_history_ends_when_the_broker_is_closed_and_leaves_nothing_open(kafka_engine: Engine) -> None:
    name = topic()
    broker = on(kafka_engine, name)
    await broker.start()
    await publish_all(broker, name, [b"x" * 100_000] * 100)
    readings = [asyncio.create_task(broker.history(name)) for _ in range(5)]
    await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        await broker.aclose()
        outcomes = await asyncio.gather(*readings, return_exceptions=True)
    assert all(isinstance(each, BrokerClosed) or len(each) == 100 for each in outcomes), outcomes  # type: ignore[arg-type]  # a list
    assert await others() == set()


async def test_a_cancelled_history_leaves_nothing_open(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name) as broker:
        await publish_all(broker, name, [b"x"] * 10)
        assert len(await broker.history(name)) == 10
        before = await others()
        for milliseconds in range(0, 60, 3):
            reading = asyncio.create_task(broker.history(name))
            await asyncio.sleep(milliseconds / 1000)
            reading.cancel()
            await asyncio.wait([reading])
        async with asyncio.timeout(10):
            while not await others() <= before:  # consumers are stopped in the background
                pass
        assert len(await broker.history(name)) == 10


async def others() -> set[str]:
    """The tasks that run, but for this one, once those that were about to end have ended."""
    await asyncio.sleep(0.01)
    return {str(task.get_coro()) for task in asyncio.all_tasks() - {asyncio.current_task()}}


async def test_history_that_cannot_be_read_raises_an_error(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name, patience=2) as broker:
        await publish_all(broker, name, [b"x"] * 10)
        kafka_engine.kill()
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.history(name)
        finally:
            await kafka_engine.restart()


async def test_every_call_on_a_closed_broker_says_that_it_is_closed(kafka_engine: Engine) -> None:
    name = topic()
    broker = on(kafka_engine, name)
    await broker.start()
    member = await broker.join(name, "audit", "a")
    reading = asyncio.create_task(member.batch())
    await asyncio.sleep(0)
    await broker.aclose()
    assert await reading == []
    assert not broker.connected
    for call in (
        broker.publish(name, b"x"),
        broker.subscribe(name),
        broker.subscribe(name, after="1-0"),
        broker.history(name),
        broker.oldest(name),
        broker.join(name, "audit", "a"),
        broker.crash_risk(),
    ):
        with pytest.raises(BrokerClosed, match="closed"):
            await call


async def test_a_publish_says_whether_its_record_can_have_been_stored(kafka_engine: Engine) -> None:
    name = topic()
    async with on(kafka_engine, name, patience=1) as broker:
        await broker.publish(name, b"1")
        kafka_engine.kill()
        try:
            with pytest.raises(BrokerUnavailable, match="did not confirm the message"):
                await broker.publish(name, b"2")
            with pytest.raises(BrokerError):
                await broker.publish(topic(), b"3")
        finally:
            await kafka_engine.restart()
        await until(lambda: broker.connected, "the broker is back")


async def test_the_settings_tell_what_a_crash_may_cost(kafka_engine: Engine) -> None:
    async with KafkaBroker(kafka_engine.url) as broker:
        assert "power cut" in await broker.crash_risk()


async def test_kafka_gives_each_topic_a_number_of_its_own(kafka_engine: Engine) -> None:
    """The contract that `describe` rests on: Metadata, version 10, by way of aiokafka's client."""
    one, two = topic("one"), topic("two")
    async with operator(kafka_engine) as admin:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1) for name in (one, two)])
        found = await describe(admin._client, [one, two, "missing"])
        assert found.keys() == {one, two}
        assert len({described.incarnation for described in found.values()} | {0}) == 3
        assert found == await describe(admin._client, [one, two])


async def test_a_consumer_whose_fetching_has_failed_is_known(kafka_engine: Engine) -> None:
    """The contract that `fetching_failed` rests on: aiokafka's consumers wait for a task that is private."""
    name = topic()
    async with on(kafka_engine, name) as broker:
        reader = await broker.subscribe(name)
        consumer = broker._follower._consumer
        assert consumer is not None
        assert fetching_failed(consumer) is None
        consumer._fetcher._get_actions_per_node = None  # the next turn fails
        await broker.publish(name, b"x")  # and this makes it turn
        assert "stopped fetching" in await reason_for_loss(reader)
        again = await broker.subscribe(name)  # with a new consumer
        await broker.publish(name, b"y")
        assert await bodies(again, 1) == [b"y"]


def test_a_topic_without_a_known_partition_is_not_described_as_changed() -> None:
    with pytest.raises(LeaderNotAvailableError):
        described("chatlab", bytes(16), False, [])
