"""A chat on Kafka keeps history: clients resume when a server is killed, and newcomers see what was said."""

from __future__ import annotations

import json

import pytest

from chatlab.clients.stomp import ClientSubscription, StompClient
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import topic


async def say(client: StompClient, room: str, *texts: str) -> None:
    for text in texts:
        await client.send("/app/chat.sendMessage", json.dumps({"content": text, "room": room}))


async def heard(subscription: ClientSubscription, count: int) -> list[tuple[str, str | None]]:
    """The texts of the next messages, and whether each says that some before it are missing."""
    frames = [await anext(subscription) for _ in range(count)]
    return [(json.loads(frame.body)["content"], frame.get("gap")) for frame in frames]


@pytest.mark.long
async def test_a_client_of_a_chat_on_kafka_gets_what_it_missed_while_its_server_was_dead(kafka_engine: Engine) -> None:
    room = topic("cats")
    async with (
        Cluster(f"{kafka_engine.url}/{topic('log')}", 2) as cluster,
        StompClient(cluster.urls[0]) as kim,
        StompClient(cluster.urls[1]) as lee,
    ):
        subscription = await kim.subscribe(f"/topic/room.{room}")
        await say(lee, room, "1", "2")
        await say(lee, topic("dogs"), "elsewhere")
        assert await heard(subscription, 2) == [("1", None), ("2", None)]
        cluster.kill(0)
        await say(lee, room, "3", "4", "5")
        await cluster.restart(0)
        await say(lee, room, "6")
        assert await heard(subscription, 4) == [(text, None) for text in "3456"]
        late = await lee.subscribe(f"/topic/room.{room}", headers={"history": "50"})
        assert await heard(late, 6) == [(text, None) for text in "123456"]
