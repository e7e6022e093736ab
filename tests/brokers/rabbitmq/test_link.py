"""Readers, members and publishers are notified at once when RabbitMQ takes something away, on real servers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aio_pika
import pytest

from chatlab.brokers.port import Reader
from chatlab.brokers.rabbitmq import broker as rabbitmq
from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.rabbitmq.link import EXCHANGE, on_cancel
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import PATIENCE, bodies, publish_all, read, reason_for_loss, topic, until
from tests.support.rabbitmq_node import Node, vhost_of

pytestmark = pytest.mark.long

Begin = Callable[[RabbitMQBroker, str], Awaitable[Reader]]

WAYS: dict[str, Begin] = {
    "reader": lambda broker, name: broker.subscribe(name),
    "reader of a pattern": lambda broker, name: broker.subscribe_matching(f"{name}.#"),
    "member of a group": lambda broker, name: broker.join(name, "audit", "a"),
}
every_way = pytest.mark.parametrize("begin", WAYS.values(), ids=list(WAYS))


@asynccontextmanager
async def operator(vhost_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """Somebody else's channel."""
    async with await aio_pika.connect(vhost_url) as connection, connection.channel() as channel:
        yield channel


@every_way
async def test_a_reader_of_a_deleted_queue_ends_and_can_subscribe_again(
    vhost_url: str, rabbitmq_node: Node, begin: Begin
) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker:
        reader = await begin(broker, name)
        bystander = await broker.subscribe("bystander")
        await rabbitmq_node.delete_queues(
            "audit" if begin is WAYS["member of a group"] else "amq.gen", vhost_of(vhost_url)
        )
        assert "may have been missed" in await reason_for_loss(reader)
        await reader.aclose()
        if begin is WAYS["member of a group"]:
            await broker.publish("bystander", b"not affected")
            assert await bodies(bystander, 1) == [b"not affected"]
        await until(lambda: broker.connected, "the broker is in order")
        again = await begin(broker, name)
        await broker.publish(f"{name}.x" if begin is WAYS["reader of a pattern"] else name, b"again")
        assert await bodies(again, 1) == [b"again"]


@every_way
async def test_an_exchange_that_is_deleted_ends_all_subscriptions_on_every_instance(
    vhost_url: str, begin: Begin
) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as one, RabbitMQBroker(vhost_url) as other:
        readers = [await begin(one, name), await begin(other, name)]
        async with operator(vhost_url) as channel:
            await channel.exchange_delete(EXCHANGE)
        for reader in readers:
            await reason_for_loss(reader)
        await until(lambda: one.connected and other.connected, "both have found back")
        again = await begin(other, name)
        await one.publish(f"{name}.x" if begin is WAYS["reader of a pattern"] else name, b"again")
        assert await bodies(again, 1) == [b"again"]


async def test_a_recreated_exchange_ends_readers(vhost_url: str) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker, operator(vhost_url) as channel:
        reader = await broker.subscribe(name)
        await channel.exchange_delete(EXCHANGE)
        await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        with pytest.raises(BrokerUnavailable):  # confirmed, but no queue took it
            await broker.publish(name, b"nobody gets this")
        await reason_for_loss(reader)


async def test_work_for_a_group_whose_queue_was_deleted_is_not_confirmed(vhost_url: str, rabbitmq_node: Node) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker:
        await (await broker.join(name, "audit", "a")).aclose()
        await broker.publish(name, b"kept for the next member")
        await rabbitmq_node.delete_queues("audit", vhost_of(vhost_url))
        with pytest.raises(BrokerUnavailable, match="no queue accepted the message") as refused:
            await broker.publish(name, b"for nobody")
        assert not refused.value.outcome_unknown
        member = await broker.join(name, "audit", "b")
        await broker.publish(name, b"again")
        assert await bodies(member, 1) == [b"again"]


async def test_a_binding_that_is_removed_shows_with_the_next_message(vhost_url: str, rabbitmq_node: Node) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker, operator(vhost_url) as channel:
        member = await broker.join(name, "audit", "a")
        queue = await channel.get_queue(f"{name}:audit")
        await queue.unbind(EXCHANGE, routing_key=name)
        with pytest.raises(BrokerUnavailable, match="no queue accepted the message"):
            await broker.publish(name, b"x")
        assert "no longer routes" in await reason_for_loss(member)


@every_way
async def test_a_channel_that_rabbitmq_closes_alone_ends_its_subscription(
    vhost_url: str, rabbitmq_node: Node, begin: Begin
) -> None:
    name = topic()
    where = f"{name}.x" if begin is WAYS["reader of a pattern"] else name
    async with (
        rabbitmq_node.settings(
            consumer_timeout=500, channel_tick_interval=200
        ),  # not half an hour, looked at once a minute
        RabbitMQBroker(vhost_url) as broker,
    ):
        reader = await begin(broker, name)
        bystander = await broker.subscribe("bystander")
        await broker.publish(where, b"never acknowledged")  # nobody reads it
        await until(lambda: reader not in broker._readers, "RabbitMQ has closed the channel")
        assert "PRECONDITION" in (await reason_for_loss(reader)).upper()
        assert broker.connected
        await broker.publish("bystander", b"not affected")
        assert await bodies(bystander, 1) == [b"not affected"]
        if begin is WAYS["member of a group"]:
            assert await bodies(await begin(broker, name), 1) == [b"never acknowledged"]


async def test_a_quiet_reader_owes_rabbitmq_nothing(
    vhost_url: str, rabbitmq_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "ACKNOWLEDGE", 0.05)
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker:
        reader = await broker.subscribe(name)
        await publish_all(broker, name, [b"1", b"2", b"3"])
        assert await bodies(reader, 3) == [b"1", b"2", b"3"]
        async with asyncio.timeout(20):
            while any(await rabbitmq_node.unacknowledged(vhost_of(vhost_url))):
                pass


async def test_a_reader_that_stops_reading_ends_when_messages_are_dropped(vhost_url: str) -> None:
    name, count = topic(), rabbitmq.PREFETCH + 200
    async with RabbitMQBroker(vhost_url, max_waiting=100) as broker:
        stalled, fast = await broker.subscribe(name), await broker.subscribe(name)
        reading = asyncio.create_task(bodies(fast, count))
        sent = [b"%d" % n for n in range(count)]
        await publish_all(broker, name, sent)
        assert await reading == sent
        await until(lambda: stalled.closed, "RabbitMQ has dropped messages")
        got: list[bytes] = []
        with pytest.raises(SubscriptionLost, match=r"dropped a message.*maxlen"):
            while batch := await stalled.batch():
                got += [record.body for record in batch]
        assert got == sent[: len(got)]  # all until the loss, in order


async def test_a_message_that_expires_in_rabbitmq_ends_its_reader(vhost_url: str, rabbitmq_node: Node) -> None:
    name, count = topic(), rabbitmq.PREFETCH + 1
    async with RabbitMQBroker(vhost_url) as broker:
        stalled = await broker.subscribe(name)
        await rabbitmq_node.set_policy(vhost_of(vhost_url), "amq.gen", '{<<"message-ttl">>, 100}')
        await publish_all(broker, name, [b"x"] * count)
        await until(lambda: stalled.closed, "the last message has expired")
        with pytest.raises(SubscriptionLost, match="expired"):
            await read(stalled, count)


async def test_a_virtual_host_that_is_deleted_ends_all_and_the_broker_comes_back_with_it(
    vhost_url: str, rabbitmq_node: Node
) -> None:
    name, vhost = topic(), vhost_of(vhost_url)
    async with RabbitMQBroker(vhost_url, patience=1) as broker:
        readers: Sequence[Reader] = [await begin(broker, name) for begin in WAYS.values()]
        await rabbitmq_node.delete_vhost(vhost)
        for reader in readers:
            await reason_for_loss(reader)
        assert not broker.connected
        with pytest.raises(BrokerUnavailable, match=r"publishing failed|did not accept"):
            await broker.publish(name, b"x")
        with pytest.raises(BrokerUnavailable):
            await broker.subscribe(name)
        await rabbitmq_node.add_vhost(vhost)
        await until(lambda: broker.connected, "the broker is back")
        again = await broker.subscribe(name)
        await broker.publish(name, b"again")
        assert await bodies(again, 1) == [b"again"]


async def test_without_the_permission_to_write_the_broker_says_so(vhost_url: str, rabbitmq_node: Node) -> None:
    name, vhost = topic(), vhost_of(vhost_url)
    async with RabbitMQBroker(vhost_url, patience=1) as broker:
        reader = await broker.subscribe(name)
        await rabbitmq_node.set_permissions(vhost, write="nothing")
        async with operator(vhost_url) as channel:  # permissions are looked up once per channel: close those there are
            await channel.exchange_delete(EXCHANGE)
        await reason_for_loss(reader)
        await until(lambda: not broker.connected, "the broker has noticed")
        with pytest.raises(BrokerError):
            await broker.publish(name, b"x")
        await rabbitmq_node.set_permissions(vhost)
        await until(lambda: broker.connected, "the broker is back")
        await broker.publish(name, b"x")


async def test_under_a_memory_alarm_a_publish_says_what_is_known(vhost_url: str, rabbitmq_node: Node) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url, patience=2) as broker:
        reader = await broker.subscribe(name)
        await rabbitmq_node.set_memory_high_watermark("{absolute, 1}")
        try:
            await until(lambda: not broker.connected, "the alarm shows")
            with pytest.raises(BrokerUnavailable, match="did not accept the message within 2 s"):
                await broker.publish(name, b"refused")
        finally:
            await rabbitmq_node.set_memory_high_watermark("0.4")
        await until(lambda: broker.connected, "the alarm is over")
        await broker.publish(name, b"taken")
        assert await bodies(reader, 1) == [b"taken"]  # what was "not sent" never comes


async def test_a_publish_that_outgrows_rabbitmq_closes_the_channel_and_the_next_one_works(
    vhost_url: str, rabbitmq_node: Node
) -> None:
    name = topic()
    async with rabbitmq_node.settings(max_message_size=1000), RabbitMQBroker(vhost_url) as broker:
        reader = await broker.subscribe(name)
        with pytest.raises(BrokerUnavailable, match=r"publishing failed|did not confirm"):
            await broker.publish(name, b"x" * 2000)
        await broker.publish(name, b"small")
        assert await bodies(reader, 1) == [b"small"]  # the reader did not notice


async def test_a_frozen_server_is_reported_and_a_publish_does_not_hang(rabbitmq_engine: Engine, vhost_url: str) -> None:
    assert rabbitmq_engine.pid is not None
    name = topic()
    async with RabbitMQBroker(vhost_url, patience=0.5) as broker:
        reader = await broker.subscribe(name)
        os.kill(rabbitmq_engine.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable, match=r"did not confirm the message within 0\.5 s"):
                await broker.publish(name, b"x")
            await until(lambda: not broker.connected, "the silence shows")
        finally:
            os.kill(rabbitmq_engine.pid, signal.SIGCONT)
        await until(lambda: broker.connected, "the server answers again")
        assert await bodies(reader, 1) == [b"x"]  # it was stored, and nothing is lost


async def test_a_record_keeps_its_id_when_another_member_is_handed_it(vhost_url: str, rabbitmq_node: Node) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker:
        first = await broker.join(name, "audit", "a")
        await publish_all(broker, name, [b"1", b"2"], at_once=1)
        one, two = await read(first, 2)
        await first.aclose()
        with pytest.raises(BrokerUnavailable, match="redelivered"):
            await first.ack(one)
        second = await broker.join(name, "audit", "b")
        assert {record.id for record in await read(second, 2)} == {one.id, two.id}
        await second.ack(one)  # handed out by the first, acknowledged by the second
        await second.aclose()
        third = await broker.join(name, "audit", "c")
        assert await read(third, 1) == [two]


async def test_a_message_of_another_publisher_gets_an_id(vhost_url: str) -> None:
    name = topic()
    async with RabbitMQBroker(vhost_url) as broker, operator(vhost_url) as channel:
        member = await broker.join(name, "audit", "a")
        exchange = await channel.get_exchange(EXCHANGE)
        for identifier in ('"', "same", "same"):
            await exchange.publish(aio_pika.Message(b"x", message_id=identifier), routing_key=name)
        records = await read(member, 3)
        assert len({record.id for record in records}) == 3
        assert all('"' not in record.id for record in records)
        for record in records:
            await member.ack(record)
        await member.aclose()
        assert (await channel.declare_queue(f"{name}:audit", passive=True)).declaration_result.message_count == 0


async def test_closing_ends_what_is_under_way_as_closed(vhost_url: str, rabbitmq_engine: Engine) -> None:
    name = topic()
    broker = RabbitMQBroker(vhost_url)
    await broker.start()
    member, reader = await broker.join(name, "audit", "a"), await broker.subscribe(name)
    reading = [asyncio.create_task(subscription.batch()) for subscription in (member, reader)]
    under_way = [asyncio.create_task(broker.publish(name, b"x")) for _ in range(50)]
    under_way += [asyncio.create_task(broker.subscribe(name)) for _ in range(5)]  # type: ignore[arg-type]  # other results
    await asyncio.sleep(0.002)
    await broker.aclose()
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    # What had been sent may have been stored, so it is not called refused.
    outcomes = [each for each in outcomes if not (isinstance(each, BrokerUnavailable) and each.outcome_unknown)]
    assert all(not isinstance(each, BaseException) or isinstance(each, BrokerClosed) for each in outcomes), outcomes
    for task in reading:
        assert all(record.body == b"x" for record in await task)
    for call in (
        broker.publish(name, b"x"),
        broker.subscribe(name),
        broker.subscribe_matching("#"),
        broker.join(name, "g", "m"),
    ):
        with pytest.raises(BrokerClosed, match="closed"):
            await call


async def test_calls_that_wait_for_the_server_end_when_the_broker_is_closed(
    vhost_url: str, rabbitmq_node: Node
) -> None:
    broker = RabbitMQBroker(vhost_url, patience=PATIENCE)
    await broker.start()
    await rabbitmq_node.delete_vhost(vhost_of(vhost_url))
    await until(lambda: not broker.connected, "the loss is seen")
    waiting = [asyncio.create_task(broker.publish("t", b"x")), asyncio.create_task(broker.join("t", "g", "m"))]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await broker.aclose()
        for task in waiting:
            with pytest.raises(BrokerClosed):
                await task


async def test_a_crash_costs_what_readers_have_not_received(vhost_url: str) -> None:
    async with RabbitMQBroker(vhost_url) as broker:
        assert "have not received" not in await broker.crash_risk()
        assert "lost when RabbitMQ stops" in await broker.crash_risk()


async def test_aiormq_reports_a_consumer_that_rabbitmq_cancels(vhost_url: str) -> None:
    """The contract that `on_cancel` rests on: aio_pika's plain channels keep it to themselves."""
    ended = asyncio.Event()
    async with operator(vhost_url) as channel, operator(vhost_url) as other:
        await on_cancel(channel, ended.set)
        queue = await channel.declare_queue("q", durable=True)

        async def nothing_comes(message: aio_pika.abc.AbstractIncomingMessage) -> None: ...

        await queue.consume(nothing_comes)
        await other.queue_delete("q")
        await asyncio.wait_for(ended.wait(), 10)
