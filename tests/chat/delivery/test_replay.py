"""Missed records, then live ones: no gap, no repeat."""

from __future__ import annotations

import asyncio
import json

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.delivery import hub as chat_hub
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.support.stomp_peer import Peer, chat

ROOM = "/topic/room.cats"
TOPIC = "chat:{cats}"


def record(number: int) -> bytes:
    return json.dumps({"content": str(number)}).encode()


async def fill(broker: MemoryBroker, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await broker.publish(TOPIC, record(number))


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_a_last_id_replays_the_records_after_it_and_then_live_ones_follow(
    server: ChatServer, broker: MemoryBroker
) -> None:
    await fill(broker, 1, 10)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="1-4")
        await peer.say("new", "cats")
        assert await peer.contents(7) == [*numbers(5, 10), "new"]
        await peer.nothing_more()


async def test_a_message_id_is_accepted_as_last_id(server: ChatServer, broker: MemoryBroker) -> None:
    await fill(broker, 1, 3)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="cats/1-2")
        assert await peer.contents(1) == ["3"]


async def test_last_id_0_0_replays_everything_without_a_gap(server: ChatServer, broker: MemoryBroker) -> None:
    await fill(broker, 1, 3)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="0-0")
        first = await peer.frame("MESSAGE")
        assert json.loads(first.body)["content"] == "1"
        assert first.get("gap") is None
        assert await peer.contents(2) == ["2", "3"]


@pytest.mark.parametrize("count", [0, 1, 4, 100])
async def test_history_replays_the_last_n_records_first(server: ChatServer, broker: MemoryBroker, count: int) -> None:
    await fill(broker, 1, 10)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, history=str(count))
        await peer.say("new", "cats")
        assert await peer.contents(min(count, 10) + 1) == [*numbers(11 - min(count, 10), 10), "new"]
        await peer.nothing_more()


@pytest.mark.parametrize(("stored", "start"), [(0, "0-0"), (3, "1-3")])
async def test_a_subscription_without_a_message_can_resume_where_its_receipt_says(
    server: ChatServer, broker: MemoryBroker, stored: int, start: str
) -> None:
    await fill(broker, 1, stored)
    async with Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="a", destination=ROOM, history="0", receipt="r")
        receipt = await peer.frame("RECEIPT")
        assert receipt.serialize() == f"RECEIPT\nreceipt-id:r\nlast-id:{start}\n\n\0".encode()
    await fill(broker, stored + 1, stored + 2)  # while it is away
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id=receipt.get("last-id") or "")
        assert await peer.contents(2) == numbers(stored + 1, stored + 2)
        await peer.nothing_more()


@pytest.mark.parametrize("headers", [{}, {"history": "5"}, {"last-id": "1-2"}])
async def test_only_a_subscription_that_asks_for_nothing_past_gets_its_start(
    server: ChatServer, broker: MemoryBroker, headers: dict[str, str]
) -> None:
    await fill(broker, 1, 3)
    async with Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="a", destination=ROOM, receipt="r", **headers)
        assert (await peer.frame("RECEIPT")).get("last-id") is None


async def test_a_last_id_older_than_the_kept_records_marks_one_gap() -> None:
    async with MemoryBroker(max_length=5, run=1) as broker, await chat_server.start(broker) as server:
        await fill(broker, 1, 20)
        for last_id, gap in (("1-3", "true"), ("1-14", "true"), ("1-15", None), ("1-18", None)):
            async with Peer(server.url) as peer:
                await peer.subscribe(ROOM, last_id=last_id)
                first, second = await peer.frame("MESSAGE"), await peer.frame("MESSAGE")
                assert first.get("gap") == gap, last_id
                assert second.get("gap") is None


async def test_a_last_id_of_a_lost_stream_marks_a_gap_and_repeats_nothing(
    server: ChatServer, broker: MemoryBroker
) -> None:
    await fill(broker, 1, 3)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="1-900")
        await peer.say("new", "cats")
        message = await peer.frame("MESSAGE")
        assert (json.loads(message.body)["content"], message.get("gap")) == ("new", "true")


async def test_a_gap_with_nothing_to_replay_is_marked_on_the_first_live_message(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="1-7")
        await peer.say("a", "cats")
        await peer.say("b", "cats")
        assert [(await peer.frame("MESSAGE")).get("gap") for _ in range(2)] == ["true", None]


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"last_id": "yesterday"}, "last-id is not a record id"),
        ({"last_id": "-1"}, "last-id is not a record id"),
        ({"last_id": "1-2-3"}, "last-id is not a record id"),
        ({"history": "all"}, "history is not a number"),
        ({"history": "-3"}, "history is not a number"),
    ],
)
async def test_an_invalid_replay_header_is_an_error(server: ChatServer, headers: dict[str, str], fault: str) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="0", destination=ROOM, receipt="r", **headers)
        error = await peer.frame("ERROR")
        assert (error.get("message") or "").startswith(fault)
        assert error.get("receipt-id") == "r"


@pytest.mark.parametrize("max_held", [4096, 8])
async def test_a_replay_of_a_busy_room_has_no_gap_and_no_repeat_before_the_live_records(
    server: ChatServer, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, max_held: int
) -> None:
    """Ten clients subscribe with ten ids while the room is written to without a pause."""
    monkeypatch.setattr(chat_hub, "MAX_HELD", max_held)
    await fill(broker, 1, 3000)
    total = 4500
    writer = asyncio.create_task(fill(broker, 3001, total))

    async def newcomer(after: int) -> None:
        async with Peer(server.url) as peer:
            await peer.send("SUBSCRIBE", id="x", destination=ROOM, last_id=f"1-{after}")
            seen = [json.loads((await peer.frame("MESSAGE", 20)).body)["content"] for _ in range(total - after)]
            assert seen == numbers(after + 1, total)
            await peer.nothing_more()

    await asyncio.gather(*(newcomer(2000 + 100 * number) for number in range(10)), writer)


async def test_a_subscriber_that_acknowledges_acknowledges_replayed_messages_too(
    server: ChatServer, broker: MemoryBroker
) -> None:
    await fill(broker, 1, 3)
    async with Peer(server.url) as peer:
        await peer.subscribe(ROOM, last_id="0-0", ack="client-individual")
        await peer.say("4", "cats")
        for number in numbers(1, 4):
            message = await peer.frame("MESSAGE")
            assert json.loads(message.body)["content"] == number
            await peer.receipt("ACK", id=message.get("ack") or "")
        await peer.nothing_more()


async def test_unsubscribing_during_a_replay_leaves_nothing_behind(server: ChatServer, broker: MemoryBroker) -> None:
    await fill(broker, 1, 2000)
    async with Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="x", destination=ROOM, last_id="0-0")
        await peer.frame("MESSAGE")
        await peer.receipt("UNSUBSCRIBE", id="x")
        assert server.service.relay.topics() == []
        await peer.send("SEND", chat("x", "cats"), destination="/app/chat.sendMessage", receipt="last")
        await peer.frame("RECEIPT")
    assert not list(server.service.hub.destinations())
