"""One client's session: refusals it survives, faults that end it, and the order of the answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access, Credentials
from chatlab.chat.app import Call, User
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session import connection as chat_connection
from chatlab.lab.until import until
from tests.support.paused_broker import PausedBroker
from tests.support.stomp_peer import Peer, chat

SEND = "/app/chat.sendMessage"
ERRORS = "/user/queue/errors"


@pytest.fixture
async def held() -> AsyncIterator[PausedBroker]:
    async with PausedBroker() as broker:
        yield broker


async def answers(peer: Peer, count: int) -> list[tuple[str, str | None]]:
    """Return the next frames: command and receipt id of each."""
    frames = [await peer.frame() for _ in range(count)]
    return [(frame.command, frame.get("receipt-id")) for frame in frames]


async def errors(peer: Peer, count: int) -> list[dict[str, Any]]:
    return [json.loads((await peer.frame("MESSAGE")).body) for _ in range(count)]


async def test_a_refused_message_is_reported_on_the_errors_queue_with_its_field_and_receipt(
    server: ChatServer,
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(ERRORS, id="errors")
        for receipt, body in (
            ("not json", "hello"),
            ("empty", chat("")),
            ("room", chat("x", "no room!")),
            ("wrong kind", '{"content": 1}'),
            ("missing", "{}"),
        ):
            await peer.send("SEND", body, destination=SEND, receipt=receipt)
        reported = {error["receipt"]: error["field"] for error in await errors(peer, 5)}
        assert reported == {
            "not json": None,
            "empty": "content",
            "room": "room",
            "wrong kind": "content",
            "missing": "content",
        }
        await peer.say("the session lives on")


async def test_each_session_of_a_user_has_its_own_errors_queue(broker: MemoryBroker) -> None:
    def authenticate(credentials: Credentials) -> User:
        return User("ann", "ann")

    async with (
        await chat_server.start(broker, access=Access(authenticate)) as server,
        Peer(server.url) as one,
        Peer(server.url) as other,
    ):
        for peer in (one, other):
            await peer.subscribe(ERRORS, id="errors")
        await one.send("SEND", chat(""), destination=SEND, receipt="r")
        (error,) = await errors(one, 1)
        assert error["receipt"] == "r"
        await other.nothing_more()
        await one.nothing_more()


async def test_receipts_keep_the_order_of_their_frames_when_one_takes_long(held: PausedBroker) -> None:
    async with await chat_server.start(held) as server, Peer(server.url) as peer:
        await peer.send("SEND", chat("x"), destination=SEND, receipt="takes long")
        await peer.send("SUBSCRIBE", id="0", destination="/topic/room.cats", receipt="is done at once")
        await peer.send("SEND", chat("refuse"), destination=SEND)
        await peer.send("DISCONNECT", receipt="goodbye")
        await until(lambda: held.asked == 2)
        with pytest.raises(TimeoutError):
            await peer.frame(seconds=0.1)
        held.storing.set()
        assert await answers(peer, 3) == [
            ("RECEIPT", "takes long"),
            ("RECEIPT", "is done at once"),
            ("RECEIPT", "goodbye"),
        ]
        assert await peer.close_code() == 1000


@pytest.mark.parametrize("body", [chat("refuse"), "no JSON", "{}", chat("x", "no room!"), '{"content":' + "[" * 3000])
async def test_a_refused_message_with_a_receipt_is_an_error_without_a_subscription_to_errors(
    held: PausedBroker, body: str
) -> None:
    held.storing.set()
    async with await chat_server.start(held) as server, Peer(server.url) as peer:
        await peer.send("SEND", body, destination=SEND, receipt="7")
        assert (await peer.frame()).get("receipt-id") == "7"
        assert await peer.close_code() == 1008


async def test_a_refused_message_without_a_receipt_leaves_the_session_open(held: PausedBroker) -> None:
    held.storing.set()
    async with await chat_server.start(held) as server, Peer(server.url) as peer:
        for body in (chat("refuse"), "no JSON"):
            await peer.send("SEND", body, destination=SEND)
        await peer.nothing_more()


async def test_a_transaction_with_a_refused_message_is_an_error_with_the_receipt_of_its_commit(
    server: ChatServer,
) -> None:
    async with Peer(server.url) as peer:
        await peer.receipt("BEGIN", transaction="t")
        await peer.receipt("SEND", "no JSON", destination=SEND, transaction="t")
        await peer.send("COMMIT", transaction="t", receipt="c")
        error = await peer.frame()
        assert (error.command, error.get("receipt-id")) == ("ERROR", "c")


async def test_a_message_that_the_broker_did_not_take_gets_an_error_and_no_receipt(held: PausedBroker) -> None:
    held.storing.set()
    async with await chat_server.start(held) as server, Peer(server.url) as peer:
        await peer.subscribe(ERRORS, id="errors")
        for receipt in ("1", "refuse 2", "3"):
            await peer.send("SEND", chat(receipt), destination=SEND, receipt=receipt)
        got = await answers(peer, 3)
        assert sorted(got) == [("MESSAGE", "refuse 2"), ("RECEIPT", "1"), ("RECEIPT", "3")]
        assert got.index(("RECEIPT", "1")) < got.index(("RECEIPT", "3"))
        assert server.service.metrics.unavailable == 1


async def test_a_commit_with_one_refused_message_gets_no_receipt(server: ChatServer, broker: MemoryBroker) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(ERRORS, id="errors")
        for name, second in (("good", "b"), ("bad", "")):
            await peer.send("BEGIN", transaction=name)
            for content in ("a", second):
                await peer.send("SEND", chat(content), destination=SEND, transaction=name)
            await peer.send("COMMIT", transaction=name, receipt=name)
        assert sorted(await answers(peer, 2)) == [("MESSAGE", "bad"), ("RECEIPT", "good")]
        await peer.nothing_more()
        kept = [json.loads(record.body)["content"] for record in await broker.history("chat-stream")]
        assert kept == ["a", "b", "a"], "only the refused message is missing: a broker takes messages one by one"


async def test_a_handlers_exception_reaches_the_client_without_its_details(server: ChatServer) -> None:
    @server.service.app.message("/secret")
    def secret(number: int, call: Call) -> None:
        raise RuntimeError("the password is hunter2")

    async with Peer(server.url) as peer:
        await peer.subscribe(ERRORS, id="errors")
        await peer.send("SEND", "1", destination="/app/secret", receipt="r")
        assert await errors(peer, 1) == [{"error": "the handler failed", "field": None, "receipt": "r"}]
        await peer.say("the session lives on")


async def test_reading_pauses_while_too_much_of_a_client_is_on_its_way_to_the_broker(
    held: PausedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_connection, "MAX_SENDING", 4)
    async with await chat_server.start(held) as server, Peer(server.url) as hasty, Peer(server.url) as other:
        for number in range(40):
            await hasty.send("SEND", chat(str(number)), destination=SEND, receipt=str(number))
        await until(lambda: held.asked == 4)
        await other.subscribe("/topic/room.cats")  # other clients are read
        assert held.asked == 4
        held.storing.set()
        assert await answers(hasty, 40) == [("RECEIPT", str(number)) for number in range(40)]
    assert [json.loads(record.body)["content"] for record in await held.history("chat-stream")] == [
        str(number) for number in range(40)
    ]


async def test_a_client_that_disconnects_leaves_only_its_messages_behind(held: PausedBroker) -> None:
    async with await chat_server.start(held) as server:
        peer = await Peer(server.url).__aenter__()
        await peer.subscribe("/topic/room.cats")
        await peer.send("SEND", chat("last words"), destination=SEND, receipt="r")
        await until(lambda: held.asked == 1)
        peer.websocket.transport.abort()
        await until(lambda: not server.service.connections)
        assert server.service.relay.topics() == []
        held.storing.set()
        await until(lambda: server.service.metrics.published == 1)
        assert [json.loads(record.body)["content"] for record in await held.history("chat-stream")] == ["last words"]


@pytest.mark.parametrize(
    ("destination", "fault"),
    [
        ("/topic/public", "'/topic/public' takes messages only through /app/chat.sendMessage"),
        ("/topic/who.cats", "'/topic/who.cats' takes no messages from clients: only the server says who is in a room"),
        ("/user/bob/private", "not a user's queue: '/user/bob/private', expected /user/PRINCIPAL/queue/NAME"),
        ("/topic/*", "wildcards are not supported: '/topic/*'"),
    ],
)
async def test_a_send_to_a_forbidden_destination_ends_the_session_with_the_reason_and_the_receipt(
    server: ChatServer, destination: str, fault: str
) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SEND", "x", destination=destination, receipt="r")
        error = await peer.frame("ERROR")
        assert (error.get("message"), error.get("receipt-id")) == (fault, "r")
        assert await peer.close_code() == 1008


@pytest.mark.parametrize(
    "data",
    [
        b"SUBSCRIBE\nid:0\ndestination:/elsewhere\n\n\0SEND\ndestination:/topic/news\n\ntoo late\0",
        b"BEGIN\ntransaction:t\n\n\0SEND\ndestination:/elsewhere\ntransaction:t\n\nx\0"
        b"SEND\ndestination:/topic/news\ntransaction:t\n\ntoo late\0COMMIT\ntransaction:t\n\n\0",
    ],
    ids=["one after the other", "in a transaction"],
)
async def test_a_send_after_the_frame_that_ended_the_session_is_dropped(
    server: ChatServer, broker: MemoryBroker, data: bytes
) -> None:
    async with Peer(server.url) as peer:
        await peer.websocket.send(data, text=True)  # all in one WebSocket message
        assert (await peer.frame("ERROR")).get("message") == "unknown destination: '/elsewhere'"
        assert await peer.close_code() == 1008
    await until(lambda: not server.service.connections)
    assert await broker.history("topic:{news}") == []


async def test_an_ack_after_the_frame_that_ended_the_session_is_honoured(server: ChatServer) -> None:
    async with Peer(server.url) as worker:
        await worker.subscribe("/queue/jobs", ack="client-individual")
        await worker.receipt("SEND", "work", destination="/queue/jobs")
        ack = (await worker.frame("MESSAGE")).get("ack") or ""
        data = f"SEND\ndestination:/elsewhere\n\nx\0ACK\nid:{ack}\n\n\0"
        await worker.websocket.send(data)
        await worker.close_code()
    async with Peer(server.url) as successor:
        await successor.subscribe("/queue/jobs", ack="client-individual")
        await successor.receipt("SEND", "more work", destination="/queue/jobs")
        assert (await successor.frame("MESSAGE")).body == b"more work"


def break_down(*_: object) -> bool:
    raise ConnectionRefusedError("users.internal:5432")


def nobody_knows(credentials: Credentials) -> User:
    raise ConnectionRefusedError("users.internal:5432")


@pytest.mark.parametrize(
    "access",
    [Access(nobody_knows), Access(may_send=break_down), Access(may_subscribe=break_down)],
    ids=["authenticate", "may_send", "may_subscribe"],
)
async def test_an_access_function_that_raises_grants_nothing_and_its_details_are_not_sent(
    broker: MemoryBroker, caplog: pytest.LogCaptureFixture, access: Access
) -> None:
    async with await chat_server.start(broker, access=access) as server:
        peer = await Peer(server.url).open()
        await peer.send("CONNECT", **peer.user_headers)
        if access.may_subscribe is break_down:
            await peer.send("SUBSCRIBE", id="0", destination="/topic/room.cats")
        if access.may_send is break_down:
            await peer.send("SEND", chat("x"), destination=SEND)
        error = await peer.frame("ERROR")
        assert (error.get("message"), error.body) == ("internal error", b"")
        assert await peer.close_code() == 1011
        assert not server.service.connections
    assert await broker.history("chat-stream") == []
    (record,) = [record for record in caplog.records if record.getMessage() == "internal error"]
    assert vars(record)["connection"].startswith(server.service.id)
    assert "users.internal:5432" in caplog.text
