"""One client's subscriptions: independent of each other, live from the RECEIPT on, ended by UNSUBSCRIBE at once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import BEGINNING, Record
from chatlab.chat.app import Call
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.errors import BrokerError, BrokerUnavailable, MessageRefused
from chatlab.stomp.frames import Frame, Limits
from tests.support.stomp_peer import Peer, chat

CATS = "/topic/room.cats"


def content(frame: Frame) -> str:
    return str(json.loads(frame.body)["content"])


async def error_of(peer: Peer) -> str:
    return (await peer.frame("ERROR")).get("message") or ""


async def test_two_subscriptions_to_one_room_each_get_every_message_once_with_their_own_id(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(CATS, id="one")
        await peer.subscribe(CATS, id="other")
        await peer.say("to both", "cats")
        both = [await peer.frame("MESSAGE") for _ in range(2)]
        assert sorted(frame.get("subscription") or "" for frame in both) == ["one", "other"]
        assert {content(frame) for frame in both} == {"to both"}
        await peer.receipt("UNSUBSCRIBE", id="one")
        await peer.say("to one of them", "cats")
        left = await peer.frame("MESSAGE")
        assert (left.get("subscription"), content(left)) == ("other", "to one of them")
        await peer.nothing_more()


async def test_a_replay_does_not_disturb_a_live_subscription_of_the_same_client(
    server: ChatServer, broker: MemoryBroker
) -> None:
    for number in range(1, 4):
        await broker.publish("chat:{cats}", json.dumps({"content": f"old {number}"}).encode())
    async with Peer(server.url) as peer:
        await peer.subscribe(CATS, id="live")
        await peer.subscribe(CATS, id="all", last_id="cats/1-1")
        await peer.say("new", "cats")
        frames = [await peer.frame("MESSAGE") for _ in range(4)]
        by_id = {id: [content(frame) for frame in frames if frame.get("subscription") == id] for id in ("live", "all")}
        assert by_id == {"live": ["new"], "all": ["old 2", "old 3", "new"]}
        await peer.nothing_more()


async def test_one_subscription_too_many_is_refused_and_an_unsubscribe_frees_a_place(
    broker: MemoryBroker,
) -> None:
    async with await chat_server.start(broker, limits=Limits(max_subscriptions=2)) as server:
        async with Peer(server.url) as peer:
            for number in range(5):  # one after another counts as one
                await peer.subscribe(CATS, id=str(number))
                await peer.receipt("UNSUBSCRIBE", id=str(number))
            for id in ("a", "b"):
                await peer.subscribe(CATS, id=id)
            await peer.send("SUBSCRIBE", id="c", destination=CATS, receipt="r")
            error = await peer.frame("ERROR")
            assert error.get("message") == "too many subscriptions: at most 2 are allowed"
            assert error.get("receipt-id") == "r"
            await peer.close_code()
        assert server.service.relay.topics() == []


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        ({"id": "0", "destination": "/topic/room.dogs"}, "subscription '0' exists already"),
        ({"id": "1", "destination": "/queue/jobs", "history": "5"}, "a queue has no history"),
        ({"id": "1", "destination": "/user/bob/queue/private"}, "access refused"),
        ({"id": "1", "destination": CATS, "selector": "x = 1"}, "selectors are not supported"),
        ({"id": "1", "destination": "/topic/"}, "unknown destination"),
    ],
)
async def test_an_invalid_subscription_ends_the_session_and_leaves_nothing_behind(
    server: ChatServer, second: dict[str, str], fault: str
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(CATS, id="0")
        await peer.send("SUBSCRIBE", **second)
        assert (await error_of(peer)).startswith(fault)
        await peer.close_code()
    assert server.service.relay.topics() == []
    assert list(server.service.hub.destinations()) == []


async def test_a_topics_message_that_was_not_consumed_is_redelivered_only_to_its_subscriber(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other:
        for peer in (one, other):
            await peer.subscribe(CATS, ack="client-individual")
        await one.say("hard to read", "cats")
        first = await one.frame("MESSAGE")
        await one.receipt("NACK", id=first.get("ack") or "")
        again = await one.frame("MESSAGE")
        assert (content(again), again.get("redelivered")) == ("hard to read", "true")
        assert again.get("message-id") == first.get("message-id")
        await one.receipt("ACK", id=again.get("ack") or "")
        await one.nothing_more()
        assert await other.contents(1) == ["hard to read"]
        await other.nothing_more()


async def test_a_handler_answers_a_subscription_once_and_before_its_receipt(server: ChatServer) -> None:
    @server.service.app.subscribe("/greeting.{name}")
    async def greeting(call: Call) -> dict[str, str]:
        if call.parts["name"] == "nobody":
            raise MessageRefused("there is no such person", field="name")
        return {"content": f"{call.user.name} greets {call.parts['name']}"}

    async with Peer(server.url, "ann") as peer:
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.send("SUBSCRIBE", id="0", destination="/app/greeting.bob", receipt="r")
        answer, receipt = await peer.frame(), await peer.frame()
        assert (answer.command, receipt.command) == ("MESSAGE", "RECEIPT")
        assert (answer.get("subscription"), answer.get("destination")) == ("0", "/app/greeting.bob")
        assert content(answer) == "ann greets bob"
        await peer.send("SUBSCRIBE", id="1", destination="/app/greeting.nobody", receipt="refused")
        refused = await peer.frame()
        assert refused.get("subscription") == "errors"
        assert json.loads(refused.body) == {
            "error": "there is no such person",
            "field": "name",
            "receipt": "refused",
        }
        await peer.nothing_more()


async def test_a_message_sent_right_after_the_receipt_is_received(server: ChatServer) -> None:
    """Even in a room without other subscribers on this instance: the RECEIPT waits for the broker."""
    async with Peer(server.url) as listener, Peer(server.url) as speaker:
        for number in range(20):
            room = f"room-{number}"
            await listener.subscribe(f"/topic/room.{room}", id=room)
            await speaker.send("SEND", chat(room, room), destination="/app/chat.sendMessage")
            assert await listener.contents(1) == [room]


async def test_an_unsubscribe_takes_effect_at_once(server: ChatServer) -> None:
    """UNSUBSCRIBE and a SEND arrive together; the message is not delivered to the old subscription."""
    async with Peer(server.url) as peer:
        await peer.subscribe(CATS, id="0")
        await peer.send("UNSUBSCRIBE", id="0")
        await peer.say("gone", "cats")
        await peer.nothing_more()
        assert server.service.relay.topics() == []


class Unreadable(MemoryBroker):
    """Take and deliver new records; fail to read old ones."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault: Exception | None = fault

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> Sequence[Record]:
        if self.fault is not None:
            raise self.fault
        return await super().history(topic, after=after, limit=limit)


FAULTS = [BrokerError("WRONGTYPE Operation against a key holding the wrong kind of value"), ZeroDivisionError("ours")]


@pytest.mark.parametrize("wanted", [{"history": "5"}, {"last_id": "1-0"}], ids=["history", "last-id"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_replay_that_cannot_be_read_is_reported_and_live_messages_follow_a_gap(
    fault: Exception, wanted: dict[str, str]
) -> None:
    async with Unreadable(fault) as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.subscribe("/topic/public", **wanted)
        report = await peer.frame("MESSAGE")
        assert report.get("destination") == "/user/queue/errors"
        assert "the missed messages of '/topic/public' cannot be read" in json.loads(report.body)["error"]
        assert str(fault) in json.loads(report.body)["error"] or not isinstance(fault, BrokerError)
        for number, gap in (("1", "true"), ("2", None)):
            await peer.say(number)
            live = await peer.frame("MESSAGE")
            assert (content(live), live.get("gap")) == (number, gap)
        assert server.service.why_not_ready() == "", "the fault of one subscription does not affect the instance"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_replay_that_cannot_be_read_is_an_error_without_a_subscription_to_errors(fault: Exception) -> None:
    async with Unreadable(fault) as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/public", history="5")
        assert "cannot be read" in await error_of(peer)
        assert await peer.close_code() == 1008


async def test_a_replay_is_retried_while_the_broker_is_unavailable() -> None:
    async with (
        Unreadable(BrokerUnavailable("away")) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url) as peer,
    ):
        await peer.say("missed")
        await peer.subscribe("/topic/public", history="5")
        await peer.say("new")
        broker.fault = None
        assert await peer.contents(2) == ["missed", "new"]
