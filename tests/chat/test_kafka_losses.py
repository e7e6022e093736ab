"""Kafka loses topics and records under a running chat: the chat reports the gap and continues."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.broker_cases import topic
from tests.support.stomp_peer import Peer
from tests.support.wire import readyz_is


@pytest.fixture
def log() -> str:
    """Kafka's name for the log of this test's chat: what is deleted here concerns no other test."""
    return topic("log")


@pytest.fixture
async def server(kafka_engine: Engine, log: str) -> AsyncIterator[ChatServer]:
    broker = KafkaBroker(kafka_engine.url, takeover_after=1.5, log=log, partitions=1)
    async with broker, await chat_server.start(broker) as server:
        yield server


@pytest.fixture
async def operator(kafka_engine: Engine) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_engine.url.removeprefix("kafka://"))
    await admin.start()
    yield admin
    await admin.close()


@pytest.mark.long
async def test_readyz_reports_a_kafka_that_refuses_new_connections(
    server: ChatServer, operator: AIOKafkaAdminClient
) -> None:
    room = topic("cats")
    async with Peer(server.url) as kim:
        await kim.subscribe(f"/topic/room.{room}")
        await readyz_is(server, 200)
        await operator.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", {"max.connections.per.ip": "1"})])
        try:
            assert "refuses a new reader" in await readyz_is(server, 503)
            await kim.say("those who are in still talk", room)
            assert await kim.contents(1) == ["those who are in still talk"]
        finally:
            await operator.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", {})])
        await readyz_is(server, 200)


async def test_subscribers_of_a_chat_whose_log_is_deleted_see_a_gap_and_then_new_messages(
    server: ChatServer, operator: AIOKafkaAdminClient, log: str
) -> None:
    room = topic("cats")
    async with Peer(server.url) as kim:
        await kim.subscribe(f"/topic/room.{room}")
        for text in ("1", "2", "3"):
            await kim.say(text, room)
        assert await kim.contents(3) == ["1", "2", "3"]
        await operator.delete_topics([log])
        await until(lambda: bool(server.service.why_not_ready()), timeout=15)
        await until(lambda: not server.service.why_not_ready(), timeout=15)
        await kim.say("after", room)
        frame = await kim.frame("MESSAGE")
        assert (json.loads(frame.body)["content"], frame.get("gap")) == ("after", "true")
        await kim.say("later", room)
        frame = await kim.frame("MESSAGE")
        assert (json.loads(frame.body)["content"], frame.get("gap")) == ("later", None)


@pytest.mark.parametrize("how", ["deleted", "trimmed"])
async def test_a_client_that_reconnects_sees_a_gap_for_deleted_records(
    server: ChatServer, operator: AIOKafkaAdminClient, log: str, how: str
) -> None:
    room = topic("cats")
    destination = f"/topic/room.{room}"
    async with Peer(server.url) as kim:
        await kim.subscribe(destination)
        await kim.say("1", room)
        seen = (await kim.frame("MESSAGE")).get("message-id") or ""
    async with Peer(server.url) as lee:
        for number in range(2, 7):
            await lee.say(str(number), room)
        if how == "deleted":
            await operator.delete_topics([log])
            for number in range(7, 10):
                await lee.say(str(number), room)
            first = "7"
        else:
            await operator.delete_records({TopicPartition(log, 0): RecordsToDelete(before_offset=4)})
            first = "5"
    async with Peer(server.url) as kim:
        await kim.subscribe(destination, last_id=seen)
        frame = await kim.frame("MESSAGE")
        assert (json.loads(frame.body)["content"], frame.get("gap")) == (first, "true")
        assert (await kim.frame("MESSAGE")).get("gap") is None
