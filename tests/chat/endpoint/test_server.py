"""The whole chat: a SEND reaches the subscribers of every instance once each, and gets its RECEIPT."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from aiohttp import ClientSession
from websockets.asyncio.client import connect

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.delivery.transport import websocket_frame
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from chatlab.net.endpoint import WebSocketEnd
from chatlab.websocket.frames import Opcode
from tests.support.conversation import close, frame, parse_all, pong, text
from tests.support.stomp_peer import Peer, chat, raw_websocket

pytestmark = pytest.mark.every_loop


async def test_a_message_is_delivered_with_its_record_id_sender_and_time(server: ChatServer) -> None:
    async with Peer(server.url, "민지") as peer:
        await peer.subscribe("/topic/public")
        await peer.send("SEND", chat("안녕 🐈", client_id="7f3a"), destination="/app/chat.sendMessage", receipt="r")
        message = await peer.frame("MESSAGE")
        assert message.get("destination") == "/topic/public"
        assert message.get("subscription") == "sub-0"
        assert message.get("message-id") == "public/1-1"
        assert message.get("content-type") == "application/json"
        body = json.loads(message.body)
        assert list(body) == ["id", "client_id", "room", "sender", "from", "content", "time"]
        assert {**body, "time": ""} == {
            "id": "1-1",
            "client_id": "7f3a",
            "room": "public",
            "sender": "민지",
            "from": peer.connected.get("user-handle"),
            "content": "안녕 🐈",
            "time": "",
        }
        assert (await peer.frame("RECEIPT")).get("receipt-id") == "r"


async def test_two_instances_on_one_broker_reach_the_subscribers_of_both_once_each(broker: MemoryBroker) -> None:
    async with (
        await chat_server.start(broker) as one,
        await chat_server.start(broker) as other,
        Peer(one.url, "a") as a,
        Peer(other.url, "b") as b,
    ):
        await a.subscribe("/topic/public")
        await b.subscribe("/topic/public", id="another id")
        for number in range(3):
            await a.say(f"from a {number}")
            await b.say(f"from b {number}")
        expected = [f"from {who} {number}" for number in range(3) for who in "ab"]
        assert await a.contents(6) == expected
        assert await b.contents(6) == expected
        await a.nothing_more()
        await b.nothing_more()


async def test_messages_sent_at_once_keep_their_order_and_get_receipts_in_order(server: ChatServer) -> None:
    async with Peer(server.url, "a") as peer:
        await peer.subscribe("/topic/public")
        for number in range(200):
            await peer.send("SEND", chat(str(number)), destination="/app/chat.sendMessage", receipt=str(number))
        assert await peer.contents(200) == [str(number) for number in range(200)]
        receipts = [(await peer.frame("RECEIPT")).get("receipt-id") for _ in range(200)]
        assert receipts == [str(number) for number in range(200)]


async def test_a_subprotocol_is_chosen_from_the_clients_offer_and_none_is_required(
    server: ChatServer,
) -> None:
    for offered, chosen in ((["v12.stomp", "v11.stomp"], "v12.stomp"), (["x", "v10.stomp"], "v10.stomp"), (None, None)):
        async with connect(server.url, subprotocols=offered) as websocket:  # type: ignore[arg-type]  # a NewType of str
            assert websocket.subprotocol == chosen


async def test_closing_the_server_closes_every_client_with_1001(broker: MemoryBroker) -> None:
    server = await chat_server.start(broker)
    async with Peer(server.url) as peer:
        closing = asyncio.create_task(server.aclose())
        assert await peer.close_code() == 1001
        await closing
        assert not server.service.connections


async def test_a_disconnect_gets_its_receipt_after_all_earlier_ones_and_closes(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SEND", chat("x"), destination="/app/chat.sendMessage", receipt="1")
        await peer.send("DISCONNECT", receipt="2")
        assert [(await peer.frame("RECEIPT")).get("receipt-id") for _ in range(2)] == ["1", "2"]
        assert await peer.close_code() == 1000
    assert not server.service.connections


async def test_health_readiness_and_metrics_answer(server: ChatServer) -> None:
    async with ClientSession(server.page_url) as http, Peer(server.url) as peer:
        await peer.subscribe("/topic/public")
        await peer.say("x")
        for path, status, text in (("healthz", 200, "ok\n"), ("readyz", 200, "ready\n")):
            async with http.get(f"/{path}") as response:
                assert (response.status, await response.text()) == (status, text)
        async with http.get("/metrics") as response:
            page = await response.text()
        assert "chatlab_connections 1\n" in page
        assert "chatlab_messages_published_total 1\n" in page


async def test_a_page_of_another_origin_may_not_open_a_websocket(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, origins=["https://chat.example"]) as server, ClientSession() as http:
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("https://chat.example", 101),
            (server.page_url.rstrip("/"), 101),
        ):
            headers = {
                "Origin": origin,
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            async with http.get(server.url.replace("ws:", "http:"), headers=headers) as response:
                assert response.status == status, origin


async def test_a_silent_client_is_pinged_and_dropped_without_a_pong(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat_server, "PING_SECONDS", 0.4)
    caplog.set_level(logging.INFO, "chatlab.chat")
    async with await chat_server.start(broker) as server, Peer(server.url, "answers") as peer:
        reader, writer = await raw_websocket(server.port)
        assert await reader.readexactly(2) == b"\x89\x00", "a Ping without a payload"
        assert await reader.read() == b"", "without a pong, the connection is closed"
        assert "no answer to a ping" in caplog.text
        writer.close()
        await peer.subscribe("/topic/public")
        await peer.say("still here")
        assert await peer.contents(1) == ["still here"]


async def test_a_ping_is_sent_only_to_a_silent_client(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "PING_SECONDS", 0.3)
    async with await chat_server.start(broker) as server:
        reader, writer = await raw_websocket(server.port)
        for _ in range(20):
            writer.write(pong())
            await asyncio.sleep(0.06)
        writer.write(text(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"))
        answer = parse_all(await reader.read(1 << 16))
        assert [each.payload[:9] for each in answer] == [b"CONNECTED"], "and no Ping"
        writer.close()


@pytest.mark.parametrize("last", [frame(3), close(1000)], ids=["there is no opcode 3", "Close"])
async def test_nothing_follows_a_close_frame_in_a_busy_room(server: ChatServer, last: bytes) -> None:
    reader, writer = await raw_websocket(server.port)
    (connection,) = server.service.connections
    assert isinstance(connection, StompConnection)
    sink = connection.transport.sink
    assert isinstance(sink, WebSocketEnd)
    loop = asyncio.get_running_loop()

    def send_every_turn() -> None:
        if not sink.is_closed:
            server.service.fanout.send(websocket_frame(b"\n"), (sink,))
            loop.call_soon(send_every_turn)

    send_every_turn()
    data = await reader.read(1 << 16)
    writer.write(last)
    data += await reader.read()
    opcodes = [each.opcode for each in parse_all(data)]
    assert opcodes[-1] == Opcode.CLOSE and opcodes.count(Opcode.CLOSE) == 1
    writer.close()
