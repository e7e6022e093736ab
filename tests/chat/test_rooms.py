"""Rooms, repeated messages, and the answers to messages that cannot be accepted."""

from __future__ import annotations

import json
import unicodedata

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access, Credentials
from chatlab.chat.app import User
from chatlab.chat.destinations import topic_of
from chatlab.chat.directory import handle_of
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.support.stomp_peer import Peer

SEND = "/app/chat.sendMessage"
KEY = "a secret of this guest"


async def test_a_room_receives_its_own_messages_and_no_others(server: ChatServer) -> None:
    async with Peer(server.url, "a") as peer:
        await peer.subscribe("/topic/room.고양이", id="cats")
        await peer.subscribe("/topic/room.dogs", id="dogs")
        await peer.say("멍", "dogs")
        await peer.say("야옹", "고양이")
        await peer.say("nobody here", "birds")
        first, second = await peer.frame("MESSAGE"), await peer.frame("MESSAGE")
        assert (first.get("subscription"), first.get("message-id")) == ("dogs", "dogs/1-1")
        assert (second.get("subscription"), second.get("message-id")) == ("cats", "고양이/1-1")
        assert json.loads(second.body)["room"] == "고양이"
        await peer.nothing_more()


async def test_an_instance_reads_only_the_rooms_it_has_subscribers_for(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other:
        await one.subscribe("/topic/room.cats")
        await other.subscribe("/topic/room.cats")
        assert server.service.relay.topics() == ["chat:{cats}"]
        await one.receipt("UNSUBSCRIBE", id="sub-0")
        assert server.service.relay.topics() == ["chat:{cats}"]
        await other.receipt("UNSUBSCRIBE", id="sub-0")
        assert server.service.relay.topics() == []


async def test_a_message_sent_again_is_stored_once_and_gets_its_receipt_even_after_a_reconnect(
    server: ChatServer, broker: MemoryBroker
) -> None:
    async with Peer(server.url, "a", client_key=KEY) as first:
        await first.say("once", client_id="c1")
    async with Peer(server.url, "a", client_key=KEY) as again, Peer(server.url, "b") as other:
        await again.say("once", client_id="c1")
        await other.say("another's c1 is another", client_id="c1")
        await again.say("so is one in another room", "cats", client_id="c1")
    assert len(await broker.history("chat-stream")) == 2
    assert len(await broker.history("chat:{cats}")) == 1


async def test_a_namesakes_message_is_not_a_repeat(server: ChatServer, broker: MemoryBroker) -> None:
    async with Peer(server.url, "a") as one, Peer(server.url, "a") as namesake:
        await namesake.say("once", client_id="c1")
        await one.say("once", client_id="c1")
        await one.say("once", client_id="c1")
    assert len(await broker.history("chat-stream")) == 2


async def test_a_message_sent_without_a_client_id_is_delivered_without_one(server: ChatServer) -> None:
    async with Peer(server.url, "a") as peer:
        await peer.subscribe("/topic/public")
        await peer.subscribe("/user/queue/private", id="private")
        await peer.say("no id")
        public = json.loads((await peer.frame("MESSAGE")).body)
        to_itself = json.dumps({"to": peer.connected.get("user-name"), "content": "psst"})
        await peer.send("SEND", to_itself, destination="/app/chat.private")
        private = json.loads((await peer.frame("MESSAGE")).body)
    assert list(public) == ["id", "room", "sender", "from", "content", "time"]
    assert list(private) == ["sender", "from", "content", "time"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"hello", None),
        (b"\xff\xfe", None),
        (b"{}", "content"),
        (b'{"content": 5}', "content"),
        (b'{"content": ""}', "content"),
        (b'{"content": "x", "room": "a b"}', "room"),
        (b'{"content": "x", "room": 7}', "room"),
        (b'{"content": "x", "client_id": ""}', "client_id"),
        (b'{"content": "x", "more": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b"[" * 5000 + b"]" * 5000, None),
    ],
)
async def test_an_invalid_message_is_reported_on_the_errors_queue_and_the_session_stays_open(
    server: ChatServer, body: bytes, field: str | None
) -> None:
    async with Peer(server.url, "a") as peer:
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.subscribe("/topic/public")
        await peer.send("SEND", body, destination=SEND, receipt="bad")
        error = await peer.frame("MESSAGE")
        assert error.get("subscription") == "errors"
        assert error.get("destination") == "/user/queue/errors"
        assert error.get("receipt-id") == "bad"
        report = json.loads(error.body)
        assert (report["receipt"], report["field"]) == ("bad", field)
        await peer.say("still here")
        assert await peer.contents(1) == ["still here"]


async def test_the_sender_is_the_connected_user_whatever_the_message_says(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as named, Peer(server.url) as nameless:
        await named.subscribe("/topic/public")
        await named.say("1", sender="bob")
        await nameless.say("2", sender="bob")
        await nameless.say("3")
        senders = [json.loads((await named.frame("MESSAGE")).body)["sender"] for _ in range(3)]
        assert senders[:2] == ["ann", "bob"]
        assert senders[2].startswith("guest-")


async def test_a_room_takes_messages_only_through_app(server: ChatServer) -> None:
    for destination in ("/topic/public", "/topic/room.cats"):
        async with Peer(server.url) as peer:
            await peer.send("SEND", "x", destination=destination, receipt="7")
            error = await peer.frame("ERROR")
            assert "only through /app/chat.sendMessage" in (error.get("message") or "")
            assert error.get("receipt-id") == "7"
            assert await peer.close_code() == 1008


async def test_a_topic_other_than_a_room_takes_a_send_with_its_headers_except_the_servers_own(
    server: ChatServer,
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/news")
        await peer.receipt(
            "SEND",
            b"\x00\xff\n",
            destination="/topic/news",
            content_type="application/octet-stream",
            colour="red",
            message_id="mine",
            subscription="mine",
            gap="true",
        )
        message = await peer.frame("MESSAGE")
        assert message.body == b"\x00\xff\n"
        assert message.get("colour") == "red"
        assert message.get("content-type") == "application/octet-stream"
        assert message.get("message-id") == "topic/news/1-1"
        assert message.get("subscription") == "sub-0"
        assert message.get("receipt") is None
        assert message.get("gap") is None


async def test_other_content_with_the_same_client_id_is_another_message(
    server: ChatServer, broker: MemoryBroker
) -> None:
    async with (
        Peer(server.url, "kim", client_key=KEY) as one,
        Peer(server.url, "kim", client_key=KEY) as other,
        Peer(server.url, "watcher") as watcher,
    ):
        await watcher.subscribe("/topic/public")
        await one.say("from tab one", client_id="1")
        await other.say("from tab two", client_id="1")
        await one.say("from tab one", client_id="1")
        assert await watcher.contents(2) == ["from tab one", "from tab two"]
        await watcher.nothing_more()


def by_token(credentials: Credentials) -> User | None:
    return User("kim", credentials.token or "nobody")


async def test_two_authenticated_users_with_one_name_stay_two_users(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, access=Access(authenticate=by_token)) as server:
        for token in ("one", "other", "one"):
            async with Peer(server.url, token=token) as peer:
                await peer.say("hi", client_id="1")
    assert len(await broker.history("chat-stream")) == 2


async def test_a_private_message_is_a_repeat_only_with_the_same_recipient_and_content(
    server: ChatServer, broker: MemoryBroker
) -> None:
    async with Peer(server.url, "a") as peer:
        for to, content in (("p", "x"), ("q", "x"), ("p", "y"), ("p", "x")):
            body = json.dumps({"to": to, "content": content, "client_id": "1"})
            await peer.receipt("SEND", body, destination="/app/chat.private")
    assert [len(await broker.history(topic_of(f"/user/{handle_of(to)}/queue/x"))) for to in "pq"] == [2, 1]


@pytest.mark.parametrize("room", ["고양이", "हिन्दी", "தமிழ்", "العَرَبِيَّة", "ệ", "می\u200cخواهم", "\U00031350"])
async def test_all_spellings_of_a_rooms_name_are_one_room(server: ChatServer, room: str) -> None:
    nfc, nfd = unicodedata.normalize("NFC", room), unicodedata.normalize("NFD", room)
    async with Peer(server.url, "a") as one, Peer(server.url, "b") as other:
        await one.subscribe(f"/topic/room.{nfc}")
        await other.subscribe(f"/topic/room.{nfd}")
        await one.say("1", nfd)
        await other.say("2", nfc)
        for peer in (one, other):
            first, second = await peer.frame("MESSAGE"), await peer.frame("MESSAGE")
            assert [json.loads(frame.body)["content"] for frame in (first, second)] == ["1", "2"]
            assert json.loads(first.body)["room"] == json.loads(second.body)["room"] == nfc
            await peer.receipt("UNSUBSCRIBE", id="sub-0")


@pytest.mark.parametrize("destination", ["/topic/news.é", "/queue/é"])
async def test_all_spellings_of_any_other_destination_are_one_destination(server: ChatServer, destination: str) -> None:
    nfc, nfd = unicodedata.normalize("NFC", destination), unicodedata.normalize("NFD", destination)
    async with Peer(server.url) as peer:
        await peer.subscribe(nfd, ack="client")
        await peer.receipt("SEND", "1", destination=nfc)
        await peer.receipt("SEND", "2", destination=nfd)
        for body in (b"1", b"2"):
            message = await peer.frame("MESSAGE")
            assert message.body == body
            await peer.receipt("ACK", id=message.get("ack") or "")


async def test_access_rules_are_asked_about_one_spelling_of_a_destination(broker: MemoryBroker) -> None:
    def may(user: User, destination: str) -> bool:
        return (
            destination in ("/topic/room.고양이", "/app/chat.sendMessage", "/user/queue/nothing")
            and user.name == "민지"
        )

    async with (
        await chat_server.start(broker, access=Access(may_subscribe=may, may_send=may)) as server,
        Peer(server.url, unicodedata.normalize("NFD", "민지")) as minji,
    ):
        await minji.subscribe(unicodedata.normalize("NFD", "/topic/room.고양이"))
        await minji.say("야옹", unicodedata.normalize("NFD", "고양이"))
        assert json.loads((await minji.frame("MESSAGE")).body)["sender"] == "민지"


async def test_a_guest_without_a_name_is_shown_under_the_senders_name_on_one_line_in_one_spelling(
    server: ChatServer,
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/public")
        await peer.say("x", sender=unicodedata.normalize("NFD", " 민지\n\u202e"))
        assert json.loads((await peer.frame("MESSAGE")).body)["sender"] == "민지"


async def test_records_of_other_programs_are_skipped_in_a_room_and_its_history(
    server: ChatServer, broker: MemoryBroker
) -> None:
    deep = b'{"content":' + b"[" * 3000 + b"]" * 3000 + b"}"
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/public")
        await peer.say("before")
        for body in (deep, b"\xff", b"", b'{"content":"x","id":"mine"}'):
            await broker.publish("chat-stream", body)
        await peer.say("after")
        assert await peer.contents(3) == ["before", "x", "after"]
        await peer.subscribe("/topic/public", id="again", history="50")
        frames = [await peer.frame("MESSAGE") for _ in range(3)]
        assert [json.loads(frame.body)["content"] for frame in frames] == ["before", "x", "after"]
        assert [json.loads(frame.body)["id"] for frame in frames] == ["1-1", "1-5", "1-6"]
        await peer.say("live")
        assert await peer.contents(2) == ["live", "live"]
