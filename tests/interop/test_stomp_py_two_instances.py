"""An off-the-shelf client, stomp-py over WebSocket, on two real instances that share one Redis.

It speaks STOMP 1.2 on a thread of its own, offers no subprotocol, and sends an Origin of the server's own host.
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

PATIENCE = 20
Connect = Callable[[str], Any]


class Heard(stomp.ConnectionListener):  # type: ignore[misc]  # stomp-py has no types
    """What the server sent, for the test's thread to wait on."""

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
    """One stomp-py connection, subscribed to the public room."""

    def __init__(self, url: str, name: str) -> None:
        parts = urlsplit(url)
        self.heard = Heard()
        self.connection = WSStompConnection([(parts.hostname, parts.port)], ws_path=parts.path, vhost="chat.example")
        self.connection.set_listener("test", self.heard)
        self.connection.connect(name, "", wait=True)
        self.connection.subscribe("/topic/public", id="sub-0", headers={"receipt": "subscribed"})
        self.receipt("subscribed")

    def say(self, content: str, **fields: str) -> None:
        """Send, and wait until the server has stored it."""
        body = json.dumps({"content": content, **fields}, ensure_ascii=False)
        self.connection.send("/app/chat.sendMessage", body, receipt=f"said {content}")
        self.receipt(f"said {content}")

    def receipt(self, name: str) -> None:
        assert self.heard.receipts.get(timeout=PATIENCE) == name

    def contents(self, count: int) -> list[str]:
        """What the next so many messages say."""
        return [json.loads(self.heard.messages.get(timeout=PATIENCE).body)["content"] for _ in range(count)]

    def close(self) -> None:
        """Leave; nothing must be left unread by then."""
        self.connection.disconnect(receipt="goodbye")
        self.receipt("goodbye")
        assert self.heard.messages.empty()
        assert self.heard.errors.empty()


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


def test_what_is_sent_to_one_instance_is_received_on_the_other_once(cluster: Cluster) -> None:
    one, two = cluster.urls
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        ana.say("안녕 🙂")
        ben.say("hello")
        for each in (ana, ben):
            assert each.contents(2) == ["안녕 🙂", "hello"]


def test_many_messages_arrive_once_each_and_in_one_order(cluster: Cluster) -> None:
    one, two = cluster.urls
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        for number in range(50):
            (ana, ben)[number % 2].say(str(number))
        for each in (ana, ben):
            assert each.contents(50) == [str(number) for number in range(50)]


def test_a_message_has_an_id_a_sender_and_a_place_in_the_stream(cluster: Cluster) -> None:
    one, two = cluster.urls
    own_id = uuid.uuid4().hex  # the server remembers it for minutes
    with client(one, "Ana") as ana, client(two, "Ben") as ben:
        ana.say("once", client_id=own_id)
        ana.say("once", client_id=own_id)  # a retry: confirmed again, stored once
        frames = [each.heard.messages.get(timeout=PATIENCE) for each in (ana, ben)]
    first, second = (json.loads(frame.body) for frame in frames)
    assert first == second
    assert (first["sender"], first["room"], first["client_id"]) == ("Ana", "public", own_id)
    assert {frame.headers["message-id"] for frame in frames} == {f"public/{first['id']}"}
    assert {frame.headers["subscription"] for frame in frames} == {"sub-0"}
