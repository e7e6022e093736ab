"""What a group on Kafka does beyond the port: one offset for each, in a partition that other topics share."""

from __future__ import annotations

import asyncio
import sys

import pytest
from aiokafka import TopicPartition

from chatlab.brokers.kafka import groups
from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import publish_all, read, topic


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


async def test_a_group_gets_its_own_topics_records_only_and_passes_over_the_others_for_good(
    kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PASSING", 0.0)
    name, busy, log = topic(), topic("busy"), topic("log")
    async with KafkaBroker(kafka_engine.url, log=log, partitions=1, takeover_after=1.5) as broker:
        member, other = await broker.join(name, "audit", "a"), await broker.join(busy, "audit", "b")
        await publish_all(broker, busy, [b"x"] * 300)
        await broker.publish(name, b"1")
        (record,) = await read(member, 1)
        assert record.body == b"1"
        await member.ack(record)
        assert [each.body for each in await read(other, 300)] == [b"x"] * 300
        waiting = asyncio.create_task(member.batch())
        await publish_all(broker, busy, [b"x"] * 300)
        async with asyncio.timeout(20):
            while await member.consumer.committed(TopicPartition(log, 0)) < 601:  # noqa: ASYNC110  # nothing signals it
                await asyncio.sleep(0.05)
        waiting.cancel()


async def test_records_that_are_open_are_not_passed_over(kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PASSING", 0.0)
    name, busy, log = topic(), topic("busy"), topic("log")
    async with KafkaBroker(kafka_engine.url, log=log, partitions=1, takeover_after=1.5) as broker:
        member = await broker.join(name, "audit", "a")
        await broker.publish(name, b"1")
        (open_one,) = await read(member, 1)
        await publish_all(broker, busy, [b"x"] * 300)
        await broker.publish(name, b"2")
        assert [each.body for each in await read(member, 1)] == [b"2"]
        await member.aclose()
        again = await broker.join(name, "audit", "b")
        assert (await read(again, 1))[0] == open_one


WORKER = """
import asyncio, sys
from chatlab.brokers.kafka.broker import KafkaBroker

async def main():
    async with KafkaBroker(sys.argv[1], takeover_after=1.5) as broker:
        member = await broker.join(sys.argv[2], "audit", "a")
        print("joined", flush=True)
        async for record in member:
            print(record.body.decode(), flush=True)

asyncio.run(main())
"""


@pytest.mark.long
async def test_the_work_of_a_killed_process_goes_to_another_member(kafka_engine: Engine) -> None:
    name = topic()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, kafka_engine.url, name, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    try:
        async with asyncio.timeout(60), KafkaBroker(kafka_engine.url, takeover_after=1.5) as broker:
            assert await worker.stdout.readline() == b"joined\n"
            ids = [await broker.publish(name, body) for body in (b"1", b"2")]
            assert [await worker.stdout.readline() for _ in range(2)] == [b"1\n", b"2\n"]
            second = await broker.join(name, "audit", "b")
            worker.kill()
            assert [each.id for each in await read(second, 2)] == ids
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()
