"""Reading one topic's records out of a partition that it shares with others."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import OffsetOutOfRangeError

from chatlab.brokers.kafka import queries
from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.kafka.partitions import place_of
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, publish_all, topic


class Scanned:
    """Counts the offsets that a broker's queries read."""

    def __init__(self, broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offsets = 0
        self._read = broker._queries.read
        monkeypatch.setattr(broker._queries, "read", self._count)

    async def _count(self, partition: TopicPartition, start: int, end: int, *octets: Any) -> tuple[list[Any], int]:
        self.offsets += end - start
        return await self._read(partition, start, end, *octets)


def shared(engine: Engine, log: str) -> KafkaBroker:
    """A broker all of whose topics are in one partition."""
    return KafkaBroker(engine.url, log=log, partitions=1)


async def test_a_quiet_room_is_found_among_busy_ones_and_the_second_time_without_a_search(
    kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "CHUNK", 100)
    monkeypatch.setattr(queries, "JUMP", 10)
    monkeypatch.setattr(queries, "OCTETS", 700)  # not even a chunk at a time
    quiet, busy = topic("quiet"), topic("busy")
    async with shared(kafka_engine, topic("log")) as broker:
        await publish_all(broker, quiet, [b"1", b"2"], at_once=1)
        await publish_all(broker, busy, [b"x"] * 2000)
        await publish_all(broker, quiet, [b"3"])
        scanned = Scanned(broker, monkeypatch)
        assert [each.body for each in await broker.history(quiet, limit=3)] == [b"1", b"2", b"3"]
        assert scanned.offsets >= 2003
        before = scanned.offsets
        assert [each.body for each in await broker.history(quiet, limit=3)] == [b"1", b"2", b"3"]
        assert await broker.before_newest(topic("empty"), 50) is None
        assert scanned.offsets - before <= 300  # two places in the partition


async def test_what_a_live_reader_sees_need_not_be_searched_for(
    kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, busy = topic(), topic("busy")
    async with shared(kafka_engine, topic("log")) as broker:
        reader = await broker.subscribe(busy)
        assert await broker.history(name, limit=10) == []
        await publish_all(broker, name, [b"1", b"2"], at_once=1)
        await publish_all(broker, busy, [b"x"] * 500)
        assert await bodies(reader, 500) == [b"x"] * 500
        scanned = Scanned(broker, monkeypatch)
        assert await broker.before_newest(name, 1) is not None
        assert scanned.offsets == 0


async def test_pages_pass_over_the_other_rooms_records(kafka_engine: Engine) -> None:
    name, other = topic(), topic("other")
    async with shared(kafka_engine, topic("log")) as broker:
        sent = [b"%d" % n for n in range(40)]
        for body in sent:
            await broker.publish(name, body)
            await broker.publish(other, b"not here")
        got: list[bytes] = []
        after, more = "0-0", True
        while more:
            page = await broker.page(name, after=after, limit=7, octets=10_000)
            got += [each.body for each in page.records]
            after, more = page.records[-1].id, page.more
        assert got == sent
        assert [each.body for each in await broker.history(name, limit=3)] == sent[-3:]


async def test_a_query_after_one_whose_records_are_gone_works(kafka_engine: Engine) -> None:
    name, log = topic(), topic("log")
    async with shared(kafka_engine, log) as broker:
        await publish_all(broker, name, [b"1", b"2", b"3"], at_once=1)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
        await admin.start()
        await admin.delete_records({TopicPartition(log, 0): RecordsToDelete(before_offset=2)})
        await admin.close()
        assert broker._log is not None
        with pytest.raises(OffsetOutOfRangeError):  # as if they had been deleted between two steps of a query
            await broker._queries.forward(place_of(name, broker._log), (0, 3), None, None)
        assert [each.body for each in await broker.history(name)] == [b"3"]
        assert [each.body for each in await broker.history(name, limit=5)] == [b"3"]
