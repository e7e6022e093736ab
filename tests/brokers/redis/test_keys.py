"""Every key that a chat writes is of a kind that is written down."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis.keys import KINDS, kind_of
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.destinations import topic_of
from chatlab.chat.endpoint import server as chat_server
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import read
from tests.support.stomp_peer import Peer


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("chat-stream", "public room"),
        ("chat:{cats}", "rooms"),
        ("topic:{a.b/c:once:}", "topics"),
        ("queue:{jobs}", "queues"),
        ("queue:{jobs}:set-aside:subscribers", "set aside"),
        ("chat:{cats}:once:mia/1", "repeats"),
        ("{chat-stream}:once:1", "repeats"),
        ("presence:{cats}", "presence"),
        ("presence:{cats}:mia", "presence"),
        ("room", "shared room"),
        ("chatter", None),
        ("somebody:else", None),
    ],
)
def test_a_key_is_of_the_kind_that_its_name_says(key: str, kind: str | None) -> None:
    found = kind_of(key)
    assert (found.name if found else None) == kind


def test_private_messages_have_a_kind() -> None:
    kind = kind_of(topic_of("/user/mia/queue/private"))
    assert kind is not None
    assert kind.name == "private messages"


def test_each_kind_of_key_has_an_owner_and_an_expiry() -> None:
    assert all(kind.owner and kind.holds and kind.end for kind in KINDS)


async def test_a_chat_writes_no_key_of_another_kind(fresh_redis: Engine) -> None:
    async with (
        RedisStreamsBroker(fresh_redis.url, takeover_after=0.05, tries=1) as broker,
        Redis.from_url(fresh_redis.url) as redis,
        await chat_server.start(broker) as server,
        Peer(server.url, "mia") as peer,
    ):
        await peer.subscribe("/topic/room.cats", "cats", history="5")
        await peer.subscribe("/topic/who.cats", "who")
        await peer.subscribe("/user/queue/private", "mine")
        await peer.subscribe("/queue/jobs", "jobs")
        await peer.say("hello")
        await peer.say("hello", "cats", client_id="1")
        body = json.dumps({"content": "psst", "to": "mia"})
        await peer.send("SEND", body, destination="/app/chat.private")
        await peer.receipt("SEND", "x", destination="/topic/any")
        await peer.receipt("SEND", "x", destination="/queue/waiting")
        member = await broker.join("queue:{poison}", "subscribers", "me")
        await broker.publish("queue:{poison}", b"poison")
        reading = asyncio.create_task(read(member, 3))
        while not await redis.exists("queue:{poison}:set-aside:subscribers"):  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.02)
        reading.cancel()
        while not [key async for key in redis.scan_iter("presence:*")]:  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.02)  # it is announced a moment later
        keys = [str(key, "utf-8") async for key in redis.scan_iter()]
        assert [key for key in keys if kind_of(key) is None] == []
        assert {"public room", "rooms", "topics", "queues", "set aside", "repeats", "presence"} <= {
            kind.name for kind in map(kind_of, keys) if kind
        }
