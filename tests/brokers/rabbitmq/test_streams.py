"""What the broker on RabbitMQ's stream queues does beyond the port: whole segments go, streams are deleted."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest

from chatlab.brokers.port import BEGINNING
from chatlab.brokers.rabbitmq import streams
from chatlab.brokers.rabbitmq.stream_readers import StreamReader
from chatlab.brokers.rabbitmq.streams import RabbitMQStreamsBroker, stream_name
from chatlab.errors import BrokerError, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import PATIENCE, bodies, publish_all, read, topic
from tests.support.rabbitmq_node import Node, vhost_of

SMALL = 256 << 10  # octets of a stream: four segments of 64 KiB
BODY = b"x" * 2000


def small(url: str) -> RabbitMQStreamsBroker:
    return RabbitMQStreamsBroker(url, max_octets=SMALL, patience=PATIENCE)


async def fill(broker: RabbitMQStreamsBroker, name: str, count: int = 400) -> None:
    """Publish more than the stream keeps, in chunks that are smaller than a segment."""
    await publish_all(broker, name, [BODY] * count, at_once=10)


async def test_a_reader_passes_from_segment_to_segment_without_a_loss(rabbitmq_engine: Engine) -> None:
    name = topic()
    async with RabbitMQStreamsBroker(rabbitmq_engine.url, max_octets=SMALL * 8, patience=PATIENCE) as broker:
        reader = await broker.subscribe(name)
        sent = [b"%d " % number + BODY for number in range(400)]  # several segments; RabbitMQ skips an offset for each
        reading = asyncio.create_task(bodies(reader, len(sent), 40))
        ids = [await broker.publish(name, body) for body in sent[:10]]
        await publish_all(broker, name, sent[10:], at_once=10)
        assert await reading == sent
        kept = await broker.history(name)
        assert [record.body for record in kept] == sent
        assert [record.id for record in kept[:10]] == ids
        offsets = [int(record.id.partition("-")[0]) for record in kept]
        assert offsets[-1] - offsets[0] > len(sent) - 1, "no segment ended: this test has tried nothing"


async def test_what_was_trimmed_is_reported_with_where_to_resume(rabbitmq_engine: Engine) -> None:
    name = topic()
    async with small(rabbitmq_engine.url) as broker:
        first = await broker.publish(name, b"first")
        assert await broker.oldest(name) == first
        assert await broker.lost_after(name, first) is None
        await fill(broker, name)
        oldest, resume = await broker.oldest(name), await broker.lost_after(name, first)
        assert oldest is not None
        assert resume is not None
        assert broker.is_before(first, oldest)
        kept = await broker.history(name)
        assert (kept[0].id, len(kept) < 401) == (oldest, True)
        assert await broker.history(name, after=resume) == kept
        assert (await broker.page(name, after=resume, limit=1, octets=1)).records == kept[:1]
        with pytest.raises(SubscriptionLost, match="trimmed past its reader") as lost:
            await read(await broker.subscribe(name, after=first), 1)
        assert (lost.value.resume, lost.value.restarted) == (resume, False)
        assert await read(await broker.subscribe(name, after=resume), 1) == kept[:1]
        assert await broker.lost_after(name, resume) is None


async def test_a_reader_that_was_overtaken_ends_after_what_is_complete(
    rabbitmq_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamReader, "prefetch", 10)
    name = topic()
    async with small(rabbitmq_engine.url) as broker, small(rabbitmq_engine.url) as other:
        stalled = await broker.subscribe(name)
        sent = [b"%d " % number + BODY for number in range(400)]
        await publish_all(other, name, sent, at_once=10)
        got: list[bytes] = []
        with pytest.raises(SubscriptionLost, match="trimmed past its reader") as lost:
            while batch := await stalled.batch():
                got += [record.body for record in batch]
        assert got == sent[: len(got)]
        assert lost.value.resume is not None
        rest = await broker.history(name, after=lost.value.resume)
        assert [record.body for record in rest] == sent[-len(rest) :]
        assert rest[0].id == await broker.oldest(name)


async def test_a_deleted_stream_ends_its_readers_and_its_ids_come_first(vhost_url: str, rabbitmq_node: Node) -> None:
    name = topic()
    async with RabbitMQStreamsBroker(vhost_url, patience=PATIENCE) as broker:
        old = [await broker.publish(name, b"%d" % number) for number in range(3)]
        reader = await broker.subscribe(name)
        await rabbitmq_node.delete_queues("history", vhost_of(vhost_url))
        with pytest.raises(SubscriptionLost, match="deleted and created again") as lost:
            await read(reader, 1)
        assert (lost.value.resume, lost.value.restarted) == (BEGINNING, True)
        new = await broker.publish(name, b"new")
        assert broker.is_before(old[2], new)
        assert not broker.is_before(new, old[2])
        assert await broker.lost_after(name, old[0]) == BEGINNING
        with pytest.raises(SubscriptionLost):
            await read(await broker.subscribe(name, after=old[0]), 1)
        assert [record.body for record in await broker.history(name, after=old[2])] == [b"new"]


async def test_brokers_that_create_a_stream_at_the_same_time_agree_on_its_ids(rabbitmq_engine: Engine) -> None:
    name = topic()
    async with small(rabbitmq_engine.url) as one, RabbitMQStreamsBroker(rabbitmq_engine.url) as other:
        readers = await asyncio.gather(*(broker.subscribe(name) for broker in (one, other, one, other)))
        ids = [await one.publish(name, b"1"), await other.publish(name, b"2")]
        for reader in readers:
            assert [(record.id, record.body) for record in await read(reader, 2)] == list(
                zip(ids, (b"1", b"2"), strict=True)
            )
        assert [record.id for record in await one.history(name)] == ids
        assert await other.lost_after(name, ids[0]) is None


async def test_an_empty_stream_that_an_operator_declared_can_be_read(vhost_url: str) -> None:
    name = topic()
    async with RabbitMQStreamsBroker(vhost_url, patience=PATIENCE) as broker:
        async with await aio_pika.connect(vhost_url) as connection, connection.channel() as channel:
            await channel.declare_queue(stream_name(name), durable=True, arguments=broker.limits)
        assert await broker.history(name) == []
        identifier = await broker.publish(name, b"x")
        assert [record.id for record in await broker.history(name)] == [identifier]


async def test_a_queue_that_is_not_a_stream_is_named(vhost_url: str) -> None:
    name = topic()
    async with RabbitMQStreamsBroker(vhost_url, patience=2) as broker:
        async with await aio_pika.connect(vhost_url) as connection, connection.channel() as channel:
            queue = await channel.declare_queue(stream_name(name), durable=True)
            await channel.default_exchange.publish(aio_pika.Message(b"x"), queue.name)
        with pytest.raises(BrokerError, match=r"x-stream-offset|is not a stream"):
            await broker.history(name)


@pytest.mark.parametrize("room", ["방" * 64, "x" * 200, "../#+?*'"])
async def test_a_room_may_have_any_name_that_is_a_routing_key(rabbitmq_engine: Engine, room: str) -> None:
    names = [f"chat:{{{room}}}", f"chat:{{{room}.}}"]
    async with small(rabbitmq_engine.url) as broker:
        ids = [await broker.publish(name, name.encode()) for name in names]
        for name, identifier in zip(names, ids, strict=True):
            assert [(each.id, each.body) for each in await broker.history(name, after="0-0", limit=1)] == [
                (identifier, name.encode())
            ]


async def test_the_end_of_a_stream_that_is_not_published_to_is_no_longer_read(
    rabbitmq_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE", 0.0)
    name = topic()
    async with small(rabbitmq_engine.url) as broker:
        ids = [await broker.publish(name, b"1")]
        (tail,) = broker._tails.values()
        await broker._acknowledge_once()
        assert (tail.closed, tail.channel, broker._tails) == (True, None, {})
        ids.append(await broker.publish(name, b"2"))
        assert [record.id for record in await broker.history(name)] == ids
