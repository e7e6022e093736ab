"""RabbitMQ loses queues, the exchange or a virtual host under a running chat: the chat reports it and continues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aio_pika
import pytest

from chatlab.brokers.rabbitmq.broker import RabbitMQBroker, WorkQueueReader
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.jobs import audit_log
from chatlab.lab.until import until
from tests.support.rabbitmq_node import Node, vhost_of
from tests.support.stomp_peer import Peer, chat
from tests.support.wire import readyz_is

Taken = Callable[[Node, str], Awaitable[None]]


async def delete_queues(rabbitmq_node: Node, vhost_url: str) -> None:
    await rabbitmq_node.delete_queues(vhost=vhost_of(vhost_url))


async def delete_exchange(rabbitmq_node: Node, vhost_url: str) -> None:
    async with await aio_pika.connect(vhost_url) as connection, connection.channel() as channel:
        await channel.exchange_delete("chatlab")


async def replace_vhost(rabbitmq_node: Node, vhost_url: str) -> None:
    await rabbitmq_node.delete_vhost(vhost_of(vhost_url))
    await rabbitmq_node.add_vhost(vhost_of(vhost_url))


@pytest.fixture
async def server(vhost_url: str, tmp_path: Path) -> AsyncIterator[ChatServer]:
    async with (
        RabbitMQBroker(vhost_url) as broker,
        await chat_server.start(
            broker, jobs=[audit_log(tmp_path / "audit.jsonl")], job_rooms=["cats"], heart_beat=(0, 0)
        ) as server,
    ):
        yield server


@pytest.mark.parametrize("take", [delete_queues, delete_exchange, replace_vhost])
async def test_a_room_a_queue_and_a_job_recover_and_subscribers_see_the_gap(
    server: ChatServer, vhost_url: str, rabbitmq_node: Node, tmp_path: Path, take: Taken
) -> None:
    async with Peer(server.url) as kim:
        await kim.subscribe("/topic/room.cats")
        await kim.subscribe("/queue/jobs", id="jobs")
        await kim.say("before", "cats")
        assert await kim.contents(1) == ["before"]
        await take(rabbitmq_node, vhost_url)
        await until_a_gap_shows(kim)
        await kim.say("later", "cats")
        frame = await kim.frame("MESSAGE")
        assert (json.loads(frame.body)["content"], frame.get("gap")) == ("later", None)
        async with Peer(server.url) as newcomer:
            await newcomer.subscribe("/topic/room.cats")
            await newcomer.say("hello", "cats")
            assert await newcomer.contents(1) == ["hello"]
        assert await kim.contents(1) == ["hello"]
        await until_a_job_arrives(kim)
        await until(lambda: b"hello" in (tmp_path / "audit.jsonl").read_bytes(), timeout=10)


async def until_a_gap_shows(peer: Peer) -> None:
    """Send until a message arrives after the loss, marked with a gap; earlier ones may be lost."""
    async with asyncio.timeout(20):
        while True:
            await peer.send("SEND", chat("after", "cats"), destination="/app/chat.sendMessage")
            try:
                frame = await peer.frame("MESSAGE", 0.5)
            except TimeoutError:
                continue
            assert (json.loads(frame.body)["content"], frame.get("gap")) == ("after", "true")
            break
    assert set(await peer.rest()) <= {"after"}


async def test_readyz_reports_an_unusable_rabbitmq(server: ChatServer, vhost_url: str, rabbitmq_node: Node) -> None:
    vhost = vhost_of(vhost_url)
    async with Peer(server.url) as kim:
        await kim.subscribe("/topic/room.cats")
        await rabbitmq_node.delete_vhost(vhost)
        await until(lambda: "does not answer" in server.service.why_not_ready(), timeout=15)
        await rabbitmq_node.add_vhost(vhost)
        await until(lambda: not server.service.why_not_ready(), timeout=15)
        await kim.say("again", "cats")
        assert (await kim.frame("MESSAGE")).get("gap") == "true"


@pytest.mark.long
async def test_readyz_reports_a_rabbitmq_that_refuses_new_queues(
    server: ChatServer, vhost_url: str, rabbitmq_node: Node
) -> None:
    async with Peer(server.url) as kim:
        await kim.subscribe("/topic/room.cats")
        await readyz_is(server, 200)
        await rabbitmq_node.limit_queues(vhost_of(vhost_url), 1)
        assert "refuses a new reader" in await readyz_is(server, 503)
        await kim.say("those who are in still talk", "cats")
        assert await kim.contents(1) == ["those who are in still talk"]
        await rabbitmq_node.limit_queues(vhost_of(vhost_url), -1)
        await readyz_is(server, 200)


async def until_a_job_arrives(peer: Peer) -> None:
    """Send until the queue takes a message: it recovers by itself, a moment later than the room."""
    async with asyncio.timeout(15):
        while True:
            await peer.send("SEND", "work", destination="/queue/jobs")
            try:
                frame = await peer.frame("MESSAGE", 0.5)
            except TimeoutError:
                continue
            assert (frame.get("destination"), frame.body) == ("/queue/jobs", b"work")
            return


async def test_a_message_held_when_the_channel_closes_is_handled_once(
    server: ChatServer, vhost_url: str, rabbitmq_node: Node
) -> None:
    """The record is redelivered while a client still works on it; it must not be handed out twice."""
    async with Peer(server.url) as kim:
        await kim.subscribe("/queue/jobs", id="jobs", ack="client-individual")
        await kim.receipt("SEND", "one", destination="/queue/jobs")
        await kim.receipt("SEND", "two", destination="/queue/jobs")
        one, two = await kim.frame("MESSAGE"), await kim.frame("MESSAGE")
        queue = server.service.queues._queues["/queue/jobs"]
        before = queue._group
        await delete_exchange(rabbitmq_node, vhost_url)

        def handed_both_again() -> bool:
            group = queue._group
            return group is not before and isinstance(group, WorkQueueReader) and len(group._tags) == 2

        await until(handed_both_again, timeout=10)
        await kim.send("ACK", id=one.get("ack") or "")
        await kim.send("ACK", id=two.get("ack") or "")
        await kim.receipt("SEND", "three", destination="/queue/jobs")
        three = await kim.frame("MESSAGE")
        assert three.body == b"three"
        await kim.receipt("ACK", id=three.get("ack") or "")
        assert [frame.command for frame in kim._frames] == []

        async def left() -> int:
            return sum(await rabbitmq_node.unacknowledged(vhost_of(vhost_url)))

        async with asyncio.timeout(10):
            while await left():
                pass
