"""A client gets every message, or `gap:true` on the first one after a loss: live and after a reconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.delivery import hub as chat_hub
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from chatlab.lab.wire.wire import Wire
from chatlab.stomp.frames import Frame
from tests.support.broker_cases import publish_all, redis_with_a_stall, topic
from tests.support.stomp_peer import Peer

KEEP = 1000


def record(number: int) -> bytes:
    return json.dumps({"content": str(number)}).encode()


def seen(frame: Frame) -> tuple[str, str | None]:
    """Return the content of a MESSAGE, and its `gap` header."""
    return json.loads(frame.body)["content"], frame.get("gap")


async def messages(peer: Peer, last: str) -> list[tuple[str, str | None]]:
    """Return the messages up to the one with the content `last`."""
    got = [seen(await peer.frame("MESSAGE", 20))]
    while got[-1][0] != last:
        got.append(seen(await peer.frame("MESSAGE", 20)))
    return got


class Scene:
    """A chat whose connection to Redis can be stalled, and a writer whose connection cannot."""

    def __init__(self, wire: Wire, server: ChatServer, writer: RedisStreamsBroker, redis: Redis) -> None:
        self.wire, self.server, self.writer, self.redis = wire, server, writer, redis
        room = topic("r")
        self.room, self.topic = f"/topic/room.{room}", f"chat:{{{room}}}"

    async def write(self, first: int, last: int) -> None:
        await publish_all(self.writer, self.topic, [record(number) for number in range(first, last + 1)])


@pytest.fixture
async def scene(redis_engine: Engine) -> AsyncIterator[Scene]:
    async with (
        redis_with_a_stall(redis_engine.url, KEEP) as (wire, mine, writer, redis),
        await chat_server.start(mine) as server,
    ):
        yield Scene(wire, server, writer, redis)


@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_a_room_marks_the_gap_after_its_instance_stalled(scene: Scene, seconds: float) -> None:
    async with Peer(scene.server.url) as peer:
        await peer.subscribe(scene.room)
        await scene.write(1, 1)
        assert await messages(peer, "1") == [("1", None)]
        scene.wire.stall()
        await scene.write(2, 3 * KEEP)
        await asyncio.sleep(seconds)  # shorter and longer than the time after which the server counts as lost
        scene.wire.heal()
        got = await messages(peer, f"{3 * KEEP}")
        first = int(got[0][0])
        assert 2 < first <= 2 * KEEP + 1
        assert got == [(str(n), "true" if n == first else None) for n in range(first, 3 * KEEP + 1)]
        await scene.write(3 * KEEP + 1, 3 * KEEP + 1)
        assert await messages(peer, f"{3 * KEEP + 1}") == [(f"{3 * KEEP + 1}", None)]
        await until(lambda: scene.server.service.why_not_ready() == "")


async def test_a_client_that_replayed_receives_the_smaller_ids_of_a_recreated_stream(scene: Scene) -> None:
    await scene.redis.xadd(scene.topic, {"body": record(1)}, id="9999999999999-0")  # as if the clock had been ahead
    async with Peer(scene.server.url) as live, Peer(scene.server.url) as replayed:
        await live.subscribe(scene.room)
        await replayed.subscribe(scene.room, last_id="0-0")
        assert await messages(replayed, "1") == [("1", None)]
        await scene.redis.delete(scene.topic)
        await until(lambda: scene.server.service.relay.unready() == [scene.topic], timeout=10)
        await until(lambda: scene.server.service.relay.unready() == [], timeout=10)
        await scene.write(2, 3)
        for peer in (live, replayed):
            assert await messages(peer, "3") == [("2", "true"), ("3", None)]


@pytest.mark.parametrize("loss", ["flushed", "trimmed", "its end lost", "nothing"])
async def test_a_client_that_reconnects_sees_a_gap_for_records_the_engine_lost(scene: Scene, loss: str) -> None:
    for number in range(1, 11):
        await scene.redis.xadd(scene.topic, {"body": record(number)}, id=f"1-{number}")
    match loss:
        case "flushed":
            await scene.redis.delete(scene.topic)
        case "trimmed":
            await scene.redis.xtrim(scene.topic, maxlen=2, approximate=False)
        case "its end lost":
            await scene.redis.delete(scene.topic)
            for number in (1, 2, 3):
                await scene.redis.xadd(scene.topic, {"body": record(number)}, id=f"1-{number}")
    await scene.redis.xadd(scene.topic, {"body": record(11)}, id="2-0")
    async with Peer(scene.server.url) as peer:
        await peer.subscribe(scene.room, last_id="1-5")
        got = await messages(peer, "11")
    expected = {
        "flushed": [("11", "true")],
        "trimmed": [("9", "true"), ("10", None), ("11", None)],
        "its end lost": [("11", "true")],
        "nothing": [(str(number), None) for number in range(6, 12)],
    }
    assert got == expected[loss]


async def test_a_last_id_of_an_earlier_memory_broker_gets_all_records_of_this_one_after_a_gap() -> None:
    async with await chat_server.start(MemoryBroker()) as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/public")
        for number in range(3):
            await peer.say(str(number))
        last = [await peer.frame("MESSAGE") for _ in range(3)][-1].get("message-id")
    assert last is not None
    async with await chat_server.start(MemoryBroker()) as server, Peer(server.url) as other:
        for number in range(10, 16):  # more than the client has seen, so its place is not beyond the end
            await other.say(str(number))
        await other.subscribe("/topic/public", last_id=last)
        assert await messages(other, "15") == [(str(n), "true" if n == 10 else None) for n in range(10, 16)]


async def test_records_trimmed_between_two_pages_of_a_replay_are_marked_as_a_gap(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay that falls behind a busy room reads again; records trimmed in between must show as a gap."""
    monkeypatch.setattr(chat_hub, "MAX_HELD", 10)
    await scene.write(1, KEEP)
    oldest = await scene.writer.oldest(scene.topic)
    assert oldest is not None
    writing = asyncio.create_task(scene.write(KEEP + 1, 12 * KEEP))
    async with Peer(scene.server.url) as peer:
        await peer.subscribe(scene.room, last_id=oldest)
        got = await messages(peer, f"{12 * KEEP}")
    await writing
    numbers = [int(content) for content, _ in got]
    assert numbers == sorted(set(numbers)), "in order, each once"
    for (content, gap), before in zip(got[1:], numbers, strict=False):
        assert int(content) == before + 1 or gap == "true", f"{before} is followed by {content} without a gap"
