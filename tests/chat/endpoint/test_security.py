"""Hostile clients are disconnected with a reason, and others do not notice. Private queues: see test_access.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from chatlab.limits import RateLimit
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.stomp.frames import Limits
from tests.support.chat_brokers import KINDS, ChatBroker, chat_broker
from tests.support.stomp_peer import Peer, chat

pytestmark = pytest.mark.every_loop

SEND = "/app/chat.sendMessage"


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[ChatBroker]:
    async with chat_broker(request.param) as broker:
        yield broker


@pytest.fixture
async def bystander(server: ChatServer) -> AsyncIterator[Peer]:
    """A client that chats on while others are disconnected."""
    async with Peer(server.url, "bystander") as peer:
        await peer.subscribe("/topic/public")
        yield peer
        await peer.say("still here")
        assert (await peer.contents(1)) == ["still here"]
        await peer.nothing_more()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n\0", "the first frame must be CONNECT"),
        (b"\x00\x00\x00", None),
        (b"SEND\ndestination:/topic/public\n\nx\0", "the first frame must be CONNECT"),
        (b"CONNECT\naccept-version:9\n\n\0", "no common version"),
        (b"CONNECT\nno colon here\n\n\0", None),
    ],
)
async def test_a_client_that_does_not_speak_stomp_gets_an_error_and_is_closed(
    server: ChatServer, bystander: Peer, data: bytes, reason: str | None
) -> None:
    peer = await Peer(server.url).open()
    await peer.websocket.send(data, text=True)
    assert (reason or "") in ((await peer.frame("ERROR")).get("message") or "")
    assert await peer.close_code() in (1002, 1008)


async def test_the_chat_refuses_a_page_of_another_origin(server: ChatServer, bystander: Peer) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        await connect(server.url, additional_headers={"Origin": "https://evil.example"}, proxy=None)


async def test_text_that_is_not_utf_8_fails_the_connection(server: ChatServer, bystander: Peer) -> None:
    peer = await Peer(server.url).open()
    await peer.websocket.send(b"CONNECT\naccept-version:1.2\nhost:\xff\n\n\0", text=True)
    assert await peer.close_code() == 1007


async def test_a_frame_over_the_limit_and_a_websocket_message_over_the_limit_are_refused(
    server: ChatServer, bystander: Peer
) -> None:
    async with Peer(server.url) as peer:
        half = "x" * (40 * 1024)
        await peer.websocket.send(f"SEND\ndestination:/topic/x\n\n{half}")
        await peer.websocket.send(half + "\0")
        assert "at most 65536" in ((await peer.frame("ERROR")).get("message") or "")
    async with Peer(server.url) as peer:
        await peer.websocket.send("x" * (1 << 20))
        assert await peer.close_code() == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # a reserved opcode
        (b"\x81\xff" + (1 << 20).to_bytes(8) + b"\0\0\0\0x", 1009),
    ],
)
async def test_a_broken_websocket_frame_closes_its_connection_and_does_not_fill_the_log(
    server: ChatServer, bystander: Peer, caplog: pytest.LogCaptureFixture, frame: bytes, code: int
) -> None:
    async with Peer(server.url) as peer:
        peer.websocket.transport.write(frame)
        assert await peer.close_code() == code
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_headers_and_subscriptions_are_limited(broker: ChatBroker) -> None:
    limits = Limits(max_headers=10, max_subscriptions=3)
    async with await chat_server.start(broker, limits=limits) as server:
        async with Peer(server.url) as peer:
            await peer.send("SEND", "x", destination="/topic/x", **{f"h{number}": "x" for number in range(20)})
            assert "22 headers or more: at most 10" in ((await peer.frame("ERROR")).get("message") or "")
        async with Peer(server.url) as peer:
            for number in range(4):
                await peer.send("SUBSCRIBE", id=str(number), destination="/topic/public")
            assert "too many subscriptions" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_client_that_floods_is_refused_and_then_disconnected(broker: ChatBroker) -> None:
    rate = RateLimit(per_second=5, burst=10, patience=20)
    async with (
        await chat_server.start(broker, rate=rate) as server,
        Peer(server.url) as flooder,
        Peer(server.url) as other,
    ):
        await flooder.subscribe("/user/queue/errors", id="errors")
        for number in range(100):
            await flooder.send("SEND", chat(str(number)), destination=SEND, receipt=str(number))
        refused = await flooder.frame("MESSAGE")
        assert json.loads(refused.body)["error"] == "not sent: too many messages a second"
        assert refused.get("receipt-id") == "10"
        assert (await flooder.frame("ERROR")).get("message") == "flooding: the client kept exceeding its message rate"
        assert await flooder.close_code() == 1008
        await other.say("calm")
        assert len(await broker.history("chat-stream")) <= 12


async def test_a_reader_that_stalls_is_disconnected_and_others_get_everything(broker: ChatBroker) -> None:
    policy = SlowReaderPolicy(max_buffered=64 * 1024, drain_seconds=0.2)
    async with (
        await chat_server.start(broker, slow_readers=policy) as server,
        Peer(server.url, "reader") as reader,
        Peer(server.url, "sender") as sender,
    ):
        stalled = await Peer(server.url).__aenter__()
        for peer in (reader, stalled):
            await peer.subscribe("/topic/public")
        stalled.websocket.transport.pause_reading()
        for number in range(400):
            await sender.say(f"{number} " + "x" * 30_000)
            await reader.frame("MESSAGE")
            if server.service.fanout.counters.aborted:
                break
        await until(lambda: server.service.fanout.counters.aborted == 1)
        await until(lambda: len(server.service.connections) == 2)
        stalled.websocket.transport.abort()


async def test_a_connection_without_a_request_is_closed(server: ChatServer, bystander: Peer) -> None:
    watch = server.first_request
    watch.stop()
    watch._seconds = 0.2
    watch.start()
    silent, slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    slow[1].write(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    async with asyncio.timeout(10):
        assert (await silent[0].read()).startswith(b"HTTP/1.1 408 ")
        assert (await slow[0].read()).startswith(b"HTTP/1.1 408 ")
    assert watch.cut_off == 2
    for _, writer in (silent, slow):
        writer.close()


async def test_a_websocket_without_a_connect_frame_is_closed(broker: ChatBroker) -> None:
    async with await chat_server.start(broker, connect_timeout=0.2) as server:
        peer = await Peer(server.url).open()
        assert "no CONNECT within" in ((await peer.frame("ERROR")).get("message") or "")
        assert await peer.close_code() == 1002


async def test_a_client_whose_heart_beats_stop_is_disconnected(broker: ChatBroker) -> None:
    async with await chat_server.start(broker, heart_beat=(100, 100)) as server:
        async with Peer(server.url, **{"heart-beat": "100,100"}) as peer:
            assert "heart-beat" in ((await peer.frame("ERROR")).get("message") or "")
        assert not server.service.connections


async def test_user_input_cannot_forge_a_log_line(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatlab")
    async with Peer(server.url, "eve\x1b[2J", passcode="hunter2") as peer:
        await peer.send("SEND", "{", destination=SEND, receipt="x\ny")
        await peer.send("SUBSCRIBE", id="0", destination="/elsewhere\nERROR all is lost")
        await peer.frame("ERROR")
    for record in caplog.records:
        if record.name == "chatlab.chat":
            assert record.getMessage().isprintable(), "user input is in the fields"
            assert "hunter2" not in str(vars(record))
    assert any(getattr(record, "connection", "") for record in caplog.records)


@pytest.mark.long
async def test_a_thousand_connections_dropped_anywhere_leave_nothing_behind(server: ChatServer) -> None:
    conversation = (
        b"CONNECT\naccept-version:1.2\nhost:x\n\n\0",
        b"SUBSCRIBE\nid:0\ndestination:/topic/public\nhistory:5\n\n\0",
        b"SUBSCRIBE\nid:1\ndestination:/queue/jobs\nack:client\n\n\0",
        b"SUBSCRIBE\nid:2\ndestination:/topic/who.cats\n\n\0",
        b"SUBSCRIBE\nid:3\ndestination:/topic/room.cats\nlast-id:0-0\n\n\0",
        b'SEND\ndestination:/app/chat.sendMessage\n\n{"content":"x"}\0',
        b"SEND\ndestination:/queue/jobs\n\nwork\0",
        b"UNSUBSCRIBE\nid:1\n\n\0",
        b"DISCONNECT\n\n\0",
    )

    async def drop_after(steps: int) -> None:
        peer = await Peer(server.url).open()
        for data in conversation[:steps]:
            await peer.websocket.send(data, text=True)
        peer.websocket.transport.abort()

    for number in range(40):
        await asyncio.gather(*(drop_after(number % (len(conversation) + 1)) for _ in range(25)))
    service = server.service
    await until(lambda: not service.connections, timeout=15)
    await until(lambda: not service.relay.topics() and not list(service.hub.destinations()), timeout=15)
    assert not service.queues._queues
    await until(lambda: len(asyncio.all_tasks()) < 30, timeout=15)
