"""A public client, stomp-py over WebSocket, on two real instances that share one Redis.

It speaks STOMP 1.2 in a separate thread, offers no subprotocol, and sends the server's host as its Origin.
"""

from __future__ import annotations

import asyncio
import json
import queue
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import stomp
from stomp.adapter.ws import WSStompConnection
from stomp.utils import Frame

from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine

TIMEOUT = 20
Connect = Callable[[str], Any]


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp-py has no types
    """Queue received frames for the thread of the test."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Frame] = queue.Queue()
        self.receipts: queue.Queue[str] = queue.Queue()
        self.errors: queue.Queue[Frame] = queue.Queue()

    def on_message(self, frame: Frame) -> None:
        self.messages.put(frame)

    def on_receipt(self, frame: Frame) -> None:
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame: Frame) -> None:
        self.errors.put(frame)


class Client:
    """A stomp-py connection that is subscribed to the public room."""

    def __init__(self, url: str, name: str) -> None:
        parts = urlsplit(url)
        self.received = Listener()
        self.connection = WSStompConnection([(parts.hostname, parts.port)], ws_path=parts.path, vhost="chat.example")
        self.connection.set_listener("test", self.received)
        self.connection.connect(name, "", wait=True)
        self.connection.subscribe("/topic/public", id="sub-0", headers={"receipt": "subscribed"})
        self.receipt("subscribed")

    def say(self, content: str, **fields: str) -> None:
        """Send, and wait until the server has stored it."""
        body = json.dumps({"content": content, **fields}, ensure_ascii=False)
        self.connection.send("/app/chat.sendMessage", body, receipt=f"stored {content}")
        self.receipt(f"stored {content}")

    def receipt(self, name: str) -> None:
        assert self.received.receipts.get(timeout=TIMEOUT) == name

    def contents(self, count: int) -> list[str]:
        """Return the contents of the next `count` messages."""
        return [json.loads(self.received.messages.get(timeout=TIMEOUT).body)["content"] for _ in range(count)]

    def close(self) -> None:
        """Disconnect; no frame may be unread by then."""
        self.connection.disconnect(receipt="disconnect")
        self.receipt("disconnect")
        assert self.received.messages.empty()
        assert self.received.errors.empty()


@pytest.fixture(scope="module")
def cluster(redis_engine: Engine) -> Iterator[Cluster]:
    cluster = Cluster(redis_engine.url, instances=2)
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.aclose())


@contextmanager
def client(url: str, name: str) -> Iterator[Client]:
    client = Client(url, name)
    try:
        yield client
        client.close()
    finally:
        client.connection.disconnect()


def test_a_message_to_one_instance_is_received_once_on_both(cluster: Cluster) -> None:
    one, two = cluster.urls
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        ana.say("안녕 🙂")
        ben.say("hello")
        for each in (ana, ben):
            assert each.contents(2) == ["안녕 🙂", "hello"]


def test_many_messages_arrive_once_and_in_the_same_order_on_both_instances(cluster: Cluster) -> None:
    one, two = cluster.urls
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        for number in range(50):
            (ana, ben)[number % 2].say(str(number))
        for each in (ana, ben):
            assert each.contents(50) == [str(number) for number in range(50)]


def test_a_message_sent_twice_with_one_client_id_is_stored_once_with_its_id_and_sender(cluster: Cluster) -> None:
    one, two = cluster.urls
    own_id = uuid.uuid4().hex  # the server remembers it for minutes
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        ana.say("once", client_id=own_id)
        ana.say("once", client_id=own_id)  # a retry: confirmed again, stored once
        frames = [each.received.messages.get(timeout=TIMEOUT) for each in (ana, ben)]
    first, second = (json.loads(frame.body) for frame in frames)
    assert first == second
    assert (first["sender"], first["room"], first["client_id"]) == ("Ana", "public", own_id)
    assert {frame.headers["message-id"] for frame in frames} == {f"public/{first['id']}"}
    assert {frame.headers["subscription"] for frame in frames} == {"sub-0"}
