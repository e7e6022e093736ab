"""However much history clients request, read or unread, memory stays bounded and other clients are served."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import BEGINNING
from chatlab.brokers.redis.queries import PAGE_OCTETS
from chatlab.chat.budgets import Budgets
from chatlab.chat.delivery import replay as chat_replay
from chatlab.chat.destinations import pack
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.support.broker_cases import publish_all, until
from tests.support.chat_brokers import KINDS, ChatBroker, chat_broker
from tests.support.stomp_peer import Peer

LARGE = "/topic/large"
TOPIC = "topic:{large}"
RECORD = 60_000  # octets
MIB = 1 << 20
STATM = Path("/proc/self/statm")
needs_proc = pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc")


def resident() -> int:
    """Return the resident memory of this process, in octets."""
    return int(STATM.read_text().split()[1]) * 4096


# The default limits are 16 subscriptions to a destination and four replays at once; here the replays have to bound
# themselves.
MANY = Budgets(subscriptions_per_destination=64, replays=1000)


@asynccontextmanager
async def chat_on(kind: str) -> AsyncIterator[tuple[ChatServer, ChatBroker]]:
    async with chat_broker(kind) as broker, await chat_server.start(broker, budgets=MANY) as server:
        yield server, broker


async def fill(broker: ChatBroker, count: int, size: int = RECORD, destination: str = LARGE) -> None:
    """Publish `count` records, each of which begins with its number."""
    records = [pack(destination, (), b"%d " % number + b"x" * size) for number in range(count)]
    await publish_all(broker, TOPIC, records, at_once=20)


async def ask_and_not_read(peer: Peer, count: int, **wanted: str) -> None:
    peer.websocket.transport.pause_reading()
    for number in range(count):
        await peer.send("SUBSCRIBE", id=f"{number}", destination=LARGE, **wanted)


async def round_trips(peer: Peer, count: int) -> list[float]:
    """Return the seconds from a SEND to its MESSAGE in a quiet topic, measured `count` times."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        await peer.send("SEND", f"{number}", destination="/topic/quiet")
        await peer.frame("MESSAGE")
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    return times


@pytest.mark.long
@needs_proc
@pytest.mark.parametrize("wanted", [{"last_id": "0-0"}, {"history": "10000"}], ids=["last-id", "history"])
@pytest.mark.parametrize("kind", KINDS)
async def test_twenty_unread_replays_do_not_grow_memory_or_delay_others(kind: str, wanted: dict[str, str]) -> None:
    async with (
        chat_on(kind) as (server, broker),
        Peer(server.url) as other,
        Peer(server.url) as attacker,
        Peer(server.url) as second,
    ):
        await fill(broker, 400)
        await other.subscribe("/topic/quiet")
        usual = statistics.median(await round_trips(other, 40))
        before = resident()
        for peer in (attacker, second):
            await ask_and_not_read(peer, 20, **wanted)
        under_attack = await round_trips(other, 100)
        assert resident() - before < 40 * MIB
        assert server.service.fanout.buffered() < 2 * MIB
        assert statistics.median(under_attack) < 2 * usual + 0.005
        for peer in (attacker, second):
            peer.websocket.transport.abort()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_receives_a_large_topic_whole_and_in_order_then_new_messages(kind: str) -> None:
    async with chat_on(kind) as (server, broker), Peer(server.url) as peer:
        await fill(broker, 100)
        await peer.send("SUBSCRIBE", id="0", destination=LARGE, last_id="0-0")
        seen = [await peer.frame("MESSAGE") for _ in range(100)]
        assert [int(frame.body.split()[0]) for frame in seen] == list(range(100))
        assert {frame.get("gap") for frame in seen} == {None}
        await peer.receipt("SEND", "new", destination=LARGE)
        assert (await peer.frame("MESSAGE")).body == b"new"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replay_longer_than_the_limit_starts_with_a_gap_and_has_the_newest(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_replay, "MAX_HISTORY", 300)
    async with chat_on(kind) as (server, broker):
        await fill(broker, 700, size=10)
        first, middle = (await broker.history(TOPIC))[0].id, (await broker.history(TOPIC))[450].id
        for wanted, begins, gap in [
            ({"last_id": "0-0"}, 400, "true"),
            ({"last_id": first}, 400, "true"),
            ({"last_id": middle}, 451, None),
            ({"history": "900"}, 400, None),
        ]:
            async with Peer(server.url) as peer:
                await peer.send("SUBSCRIBE", id="0", destination=LARGE, **wanted)
                seen = [await peer.frame("MESSAGE") for _ in range(700 - begins)]
                assert [int(frame.body.split()[0]) for frame in seen] == list(range(begins, 700)), wanted
                assert [frame.get("gap") for frame in seen] == [gap] + [None] * (699 - begins), wanted


@pytest.mark.parametrize("kind", KINDS)
async def test_history_returns_the_newest_messages_of_a_large_topic_for_any_count(kind: str) -> None:
    async with chat_on(kind) as (server, broker):
        await fill(broker, 200)
        for count in (1, 70, 199, 200, 201):
            async with Peer(server.url) as peer:
                await peer.send("SUBSCRIBE", id="0", destination=LARGE, history=f"{count}")
                expected = list(range(200))[-count:]
                assert [int((await peer.frame("MESSAGE")).body.split()[0]) for _ in expected] == expected


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
async def test_clients_that_stop_reading_do_not_block_the_replays_of_others(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_replay, "STALLED", 0.2)
    async with chat_on(kind) as (server, broker), Peer(server.url) as stalled, Peer(server.url) as reader:
        server.service.replays = chat_replay.Replays(server.service.hub, broker, pages=1)
        await fill(broker, 300)
        await ask_and_not_read(stalled, 20, last_id="0-0")
        await until(
            lambda: server.service.fanout.buffered() > chat_replay.MAX_WAITING,
            "the client that stopped reading has a page",
        )
        await reader.send("SUBSCRIBE", id="0", destination=LARGE, history="20")
        assert int((await reader.frame("MESSAGE")).body.split()[0]) == 280
        stalled.websocket.transport.abort()


async def test_live_messages_held_back_during_a_waiting_replay_are_bounded_and_not_lost() -> None:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        pages = chat_replay.Replays(server.service.hub, broker, pages=0)  # every replay waits
        server.service.replays = pages
        await peer.send("SUBSCRIBE", id="0", destination=LARGE, last_id="0-0", receipt="subscribed")
        await peer.frame("RECEIPT")
        (subscriber,) = server.service.hub._channels[LARGE]._members
        await fill(broker, 50)
        await until(lambda: subscriber.overflowed, "it has received more than it may hold back")
        assert subscriber.held == []
        pages._pages.release()
        assert [int((await peer.frame("MESSAGE")).body.split()[0]) for _ in range(50)] == list(range(50))
        await peer.receipt("SEND", "new", destination=LARGE)
        assert (await peer.frame("MESSAGE")).body == b"new"


@pytest.mark.parametrize("kind", KINDS)
async def test_replays_above_a_connections_limit_wait_and_are_all_served(
    kind: str,
) -> None:
    budgets = Budgets(replays=2)
    async with (
        chat_broker(kind) as broker,
        await chat_server.start(broker, budgets=budgets) as server,
        Peer(server.url) as client,
        Peer(server.url) as other,
    ):
        await fill(broker, 150)
        await ask_and_not_read(client, 6, last_id="0-0")
        await until(lambda: server.service.delays.counts.get("replays") == 4, "four of six wait")
        await other.send("SUBSCRIBE", id="0", destination=LARGE, history="20")
        assert [int((await other.frame("MESSAGE")).body.split()[0]) for _ in range(20)] == list(range(130, 150))
        assert server.service.delays.counts == {"replays": 4}
        client.websocket.transport.resume_reading()
        seen: dict[str, list[int]] = {}
        for _ in range(6 * 150):
            message = await client.frame("MESSAGE")
            seen.setdefault(message.get("subscription") or "", []).append(int(message.body.split()[0]))
        assert seen == {f"{number}": list(range(150)) for number in range(6)}


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_a_reader_that_has_fallen_behind_reads_pages_of_bounded_size(kind: str) -> None:
    async with chat_broker(kind) as broker:
        await fill(broker, 100)
        subscription = await broker.subscribe(TOPIC, after=BEGINNING)
        pages: list[list[int]] = []
        while sum(len(page) for page in pages) < 100:
            pages.append([len(delivery.body) for delivery in await subscription.batch()])
        assert max(map(sum, pages)) < PAGE_OCTETS + 2 * RECORD
        await subscription.aclose()


@needs_proc
@pytest.mark.parametrize("ack", ["client", "client-individual"])
@pytest.mark.parametrize("kind", KINDS)
async def test_replays_that_are_never_acknowledged_do_not_grow_memory(kind: str, ack: str) -> None:
    async with chat_on(kind) as (server, broker), Peer(server.url) as attacker:
        await fill(broker, 200)
        before = resident()
        for number in range(20):
            await attacker.send("SUBSCRIBE", id=f"{number}", destination=LARGE, last_id="0-0", ack=ack)
        for _ in range(4):
            await attacker.frame("MESSAGE")
        await asyncio.sleep(1)  # long enough to be sent everything
        assert resident() - before < 30 * MIB


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_replay_continues_as_it_is_acknowledged(kind: str) -> None:
    async with chat_on(kind) as (server, broker), Peer(server.url) as peer:
        await fill(broker, 2000, size=10)
        await peer.send("SUBSCRIBE", id="0", destination=LARGE, last_id="0-0", ack="client")
        for number in range(2000):
            message = await peer.frame("MESSAGE")
            assert int(message.body.split()[0]) == number
            if number % 100 == 99:
                await peer.send("ACK", id=message.get("ack") or "")


async def test_subscribing_and_unsubscribing_repeatedly_leaves_no_state_behind() -> None:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        await fill(broker, 3, size=10)
        for _ in range(50):
            await peer.send("SUBSCRIBE", id="0", destination=LARGE, last_id="0-0", ack="client")
            for _ in range(3):
                await peer.frame("MESSAGE")
            await peer.receipt("UNSUBSCRIBE", id="0")
        (connection,) = server.service.connections
        turn = connection._subscriptions._turn  # type: ignore[attr-defined]  # of the class behind the `Client` protocol
        assert len(turn._acknowledging) <= 1
