"""Public Python clients with a real chat server: stomp-py, which runs a thread, and stompman, on asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import stomp
import stompman
from stomp.adapter.ws import WSStompConnection
from stompman.connection_ws import WebSocketConnection

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from chatlab.lab.until import until

SECONDS = 10


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with await chat_server.start(MemoryBroker(), heart_beat=(200, 200)) as server:
        yield server


# --- stomp-py ---


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp-py has no types
    """Queue received frames as (kind, headers, body) for another thread."""

    def __init__(self) -> None:
        self.frames: queue.Queue[tuple[str, dict[str, str], str]] = queue.Queue()
        self.beats = 0
        self.closed = threading.Event()

    def on_message(self, frame: Any) -> None:
        self.frames.put(("MESSAGE", frame.headers, frame.body))

    def on_receipt(self, frame: Any) -> None:
        self.frames.put(("RECEIPT", frame.headers, frame.body))

    def on_error(self, frame: Any) -> None:
        self.frames.put(("ERROR", frame.headers, frame.body))

    def on_heartbeat(self) -> None:
        self.beats += 1

    def on_disconnected(self) -> None:
        self.closed.set()

    def next(self, kind: str) -> tuple[dict[str, str], str]:
        received, headers, body = self.frames.get(timeout=SECONDS)
        assert received == kind, (received, headers, body)
        return headers, body


class StompPy:
    """A connection of stomp-py; its methods block."""

    def __init__(self, url: str, heartbeats: tuple[int, int] = (0, 0)) -> None:
        parts = urlsplit(url)
        self.received = Listener()
        self.connection = WSStompConnection(
            [(parts.hostname, parts.port)], ws_path=parts.path, vhost="chat.example", heartbeats=heartbeats
        )
        self.connection.set_listener("test", self.received)
        self.connection.connect("Ana", "", wait=True)

    def subscribe(self, destination: str, ack: str = "auto") -> None:
        self.connection.subscribe(destination, id="1", ack=ack, headers={"receipt": "subscribed"})
        assert self.received.next("RECEIPT")[0]["receipt-id"] == "subscribed"

    def close(self) -> None:
        self.connection.disconnect(receipt="bye")
        assert self.received.closed.wait(SECONDS)


async def test_stomp_py_sends_receives_and_disconnects(server: ChatServer) -> None:
    def talk() -> None:
        client = StompPy(server.url)
        client.subscribe("/topic/news")
        client.connection.send("/topic/news", "안녕 🙂", content_type="text/plain", headers={"mine": "a:b\\c\nd"})
        headers, body = client.received.next("MESSAGE")
        assert (body, headers["mine"], headers["content-type"]) == ("안녕 🙂", "a:b\\c\nd", "text/plain")
        client.close()

    await asyncio.to_thread(talk)


@pytest.mark.parametrize("mode", ["client", "client-individual"])
async def test_stomp_py_gets_a_nacked_message_again(server: ChatServer, mode: str) -> None:
    def work() -> None:
        client = StompPy(server.url)
        client.subscribe(f"/queue/{mode}", ack=mode)
        for body in ("1", "2"):
            client.connection.send(f"/queue/{mode}", body)
        first, _ = client.received.next("MESSAGE")
        second, _ = client.received.next("MESSAGE")
        client.connection.ack(first["ack"])
        client.connection.nack(second["ack"])
        redelivered, body = client.received.next("MESSAGE")
        assert (body, redelivered["redelivered"], redelivered["message-id"]) == ("2", "true", second["message-id"])
        client.connection.ack(redelivered["ack"])
        client.close()
        assert client.received.next("RECEIPT")[0]["receipt-id"] == "bye"

    await asyncio.to_thread(work)


async def test_stomp_py_sends_a_transaction(server: ChatServer) -> None:
    def send() -> None:
        client = StompPy(server.url)
        client.subscribe("/topic/news")
        for name, end in (("a", client.connection.abort), ("b", client.connection.commit)):
            client.connection.begin(transaction=name)
            client.connection.send("/topic/news", f"{name}1", transaction=name)
            client.connection.send("/topic/news", f"{name}2", transaction=name)
            end(transaction=name)
        assert [client.received.next("MESSAGE")[1] for _ in range(2)] == ["b1", "b2"]
        client.close()

    await asyncio.to_thread(send)


async def test_stomp_py_receives_the_reason_of_a_refusal(server: ChatServer) -> None:
    def err() -> None:
        client = StompPy(server.url)
        client.connection.send("/nowhere", "x", receipt="r:1")
        headers, _ = client.received.next("ERROR")
        assert "/nowhere" in headers["message"]
        assert headers["receipt-id"] == "r:1"
        assert client.received.closed.wait(SECONDS)

    await asyncio.to_thread(err)


async def test_stomp_py_keeps_heart_beats(server: ChatServer) -> None:
    def idle() -> None:
        client = StompPy(server.url, heartbeats=(300, 300))
        assert not client.received.closed.wait(1.5)
        assert client.received.beats > 2
        client.subscribe("/topic/news")
        client.close()

    await asyncio.to_thread(idle)


# --- stompman ---


def stompman_client(server: ChatServer, **options: Any) -> stompman.Client:
    """Return a client of stompman, which offers no subprotocol and cannot turn heart-beats off."""
    parameters = stompman.ConnectionParameters(server.host, server.port, "Ana", "", ws_uri_path="/ws")
    options = {"heartbeat": stompman.Heartbeat(300, 300), "connection_class": WebSocketConnection, **options}
    return stompman.Client([parameters], **options)


async def test_stompman_sends_and_receives(server: ChatServer) -> None:
    received: asyncio.Queue[stompman.MessageFrame] = asyncio.Queue()
    async with asyncio.timeout(SECONDS), stompman_client(server) as client:
        subscription = await client.subscribe(
            "/topic/news", received.put, ack="auto", on_suppressed_exception=print, receipt_timeout=5
        )
        await client.send("안녕 🙂".encode(), "/topic/news", headers={"mine": "a:b\\c"}, receipt_timeout=5)
        message = await received.get()
        assert message.body == "안녕 🙂".encode()
        assert dict(message.headers)["mine"] == "a:b\\c"
        await subscription.unsubscribe()


async def test_stompman_gets_a_nacked_message_again(server: ChatServer) -> None:
    received: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()

    async def work(message: stompman.AckableMessageFrame) -> None:
        redelivered = dict(message.headers).get("redelivered") == "true"
        await (message.nack() if message.body == b"2" and not redelivered else message.ack())
        await received.put((message.body, redelivered))

    async with asyncio.timeout(SECONDS), stompman_client(server) as client:
        subscription = await client.subscribe_with_manual_ack("/queue/work", work, receipt_timeout=5)
        for body in (b"1", b"2"):
            await client.send(body, "/queue/work")
        assert [await received.get() for _ in range(3)] == [(b"1", False), (b"2", False), (b"2", True)]
        await subscription.unsubscribe()


async def test_stompman_sends_a_transaction(server: ChatServer) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def put_body(message: stompman.MessageFrame) -> None:
        await received.put(message.body)

    async with asyncio.timeout(SECONDS), stompman_client(server) as client:
        subscription = await client.subscribe(
            "/topic/news", put_body, ack="auto", on_suppressed_exception=print, receipt_timeout=5
        )
        with pytest.raises(KeyError):
            async with client.begin() as transaction:
                await transaction.send(b"a1", "/topic/news")
                raise KeyError
        async with client.begin() as transaction:
            await transaction.send(b"b1", "/topic/news")
            await transaction.send(b"b2", "/topic/news")
        assert [await received.get() for _ in range(2)] == [b"b1", b"b2"]
        await subscription.unsubscribe()


def connections(server: ChatServer) -> list[StompConnection]:
    return [each for each in server.service.connections if isinstance(each, StompConnection)]


async def test_stompman_stays_connected_by_heart_beats_and_reconnects_after_a_loss(server: ChatServer) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def put_body(message: stompman.MessageFrame) -> None:
        await received.put(message.body)

    async with asyncio.timeout(SECONDS), stompman_client(server) as client:
        subscription = await client.subscribe(
            "/topic/news", put_body, ack="auto", on_suppressed_exception=print, receipt_timeout=5
        )
        await asyncio.sleep(1)  # by now the server would have closed a silent client
        assert client.is_alive()
        (connection,) = connections(server)
        connection.transport.sink.abort()
        await until(lambda: any(c is not connection and c.session.subscriptions for c in connections(server)))
        await client.send(b"back", "/topic/news", receipt_timeout=5)
        assert await received.get() == b"back"
        await subscription.unsubscribe()
