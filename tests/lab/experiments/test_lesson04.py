"""Lesson 04's experiments on real servers and processes, and its verdicts, each of which can come out otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import KeepsHistory
from chatlab.lab.claims import Outcome
from chatlab.lab.clients import RoomClient
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson04
from chatlab.lab.experiments.lesson04 import Beside, Burst, Killed, Load, Return
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.runtime import lab


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


@pytest_asyncio.fixture
async def cluster(redis_on_path: Engine) -> AsyncIterator[Cluster]:
    async with Cluster(redis_on_path.url, 2, serve="room") as started:
        yield started


# --- The work of each server ---


async def test_the_load_is_the_processor_time_of_each_process_also_of_those_without_members(cluster: Cluster) -> None:
    alone = await lesson04.load(cluster, 30, spread=1, messages=20, repeats=2)
    shared = await lesson04.load(cluster, 30, spread=2, messages=20, repeats=2)

    assert (alone.members, alone.spread, len(alone.costs), len(alone.costs[0])) == (30, 1, 2, 2)
    assert alone.without_members is not None
    assert 0 < alone.without_members.median < alone.busiest.median < 0.1
    assert shared.without_members is None
    # The same servers, and nothing shared: then more servers ease nothing.
    pretended = {1: [alone, alone], 2: [alone, alone]}
    assert lesson04.c18(pretended).outcome is Outcome.DOES_NOT_HOLD


async def test_three_servers_are_started_once_and_again_when_one_has_died(redis_on_path: Engine) -> None:
    try:
        first = await lesson04.three_servers(redis_on_path.url)
        assert await lesson04.three_servers(redis_on_path.url) is first
        first.kill(1)
        second = await lesson04.three_servers(redis_on_path.url)
        assert all(instance.alive for instance in second.instances)
        assert not any(instance.alive for instance in first.instances)
    finally:
        await lab.stop("three servers")


def costs(members: int, spread: int, *seconds: float) -> Load:
    return Load(members, spread, (seconds, seconds))


def test_load_that_climbs_and_is_shared_evenly_holds_and_with_work_of_every_server_only_when_members_are_many() -> None:
    alone = [costs(20, 1, 0.001, 0.0001), costs(200, 1, 0.010, 0.0001)]
    evenly = lesson04.c18({1: alone, 2: [costs(20, 2, 0.0005, 0.0005), costs(200, 2, 0.005, 0.005)]})
    assert evenly.outcome is Outcome.HOLDS
    uneven = lesson04.c18({1: alone, 2: [costs(20, 2, 0.001, 0.001), costs(200, 2, 0.008, 0.008)]})
    assert uneven.outcome is Outcome.HOLDS_WHEN
    assert "members are many" in uneven.because


def test_load_that_does_not_climb_or_is_not_eased_refutes_the_claim() -> None:
    flat = [costs(20, 1, 0.010, 0.001), costs(200, 1, 0.010, 0.001)]
    assert "did not climb" in lesson04.c18({1: flat, 2: [costs(200, 2, 0.005, 0.005)]}).because
    climbing = [costs(20, 1, 0.001, 0.001), costs(200, 1, 0.010, 0.001)]
    assert "did not ease" in lesson04.c18({1: climbing, 2: [costs(200, 2, 0.010, 0.010)]}).because


def test_load_whose_repeats_lie_on_both_sides_of_the_threshold_is_too_close_to_call() -> None:
    alone = [costs(20, 1, 0.001, 0.001), costs(200, 1, 0.010, 0.001)]
    near = Load(200, 2, ((0.007, 0.007), (0.011, 0.011)))
    assert lesson04.c18({1: alone, 2: [near]}).outcome is Outcome.TOO_CLOSE


# --- Every member hears every greeting ---


async def greeted(*urls: str) -> Any:
    members = [RoomClient(url, name) for url, name in zip(urls, ("가람", "Nuri"), strict=True)]
    for member in members:
        await member.connect()
    found = lesson04.c19(await lesson04.greet(members, "hello from", seconds=1), members)
    repeated = await found.again() if found.again else None
    for member in members:
        await member.close()
    assert repeated is not None and repeated.outcome is found.outcome
    return found.outcome


async def test_members_of_joined_servers_hear_each_other_and_those_of_two_servers_do_not(cluster: Cluster) -> None:
    assert await greeted(*cluster.urls) is Outcome.HOLDS
    async with await room.start() as one, await room.start() as two:
        assert await greeted(one.url, two.url) is Outcome.DOES_NOT_HOLD


# --- A client that is cut off ---


async def cut(broker: KeepsHistory, *, handler_knows_ids: bool = True, remembers: bool = True) -> Return:
    async def handler(session: ServerConnection) -> None:
        assert session.request is not None
        last = session.request.path.partition("?after=")[2] or None
        async for message in await broker.subscribe("talk", after=last if handler_knows_ids else None):
            await session.send(f"{message.id} {message.body.decode()}")

    said = {"before": ["하나", "둘"], "away": ["셋", "넷"]}
    result = await lesson04.cut_and_come_back(handler, broker, "talk", **said, remembers=remembers)
    assert result.before == ["하나", "둘"]
    return result


async def test_a_client_that_comes_back_with_its_last_id_misses_nothing_and_otherwise_all() -> None:
    kept = await cut(MemoryBroker())
    unnamed = await cut(MemoryBroker(), remembers=False)
    ignored = await cut(MemoryBroker(), handler_knows_ids=False)

    assert kept.back[:2] == ["셋", "넷"]
    assert (kept.missed, unnamed.missed, ignored.missed) == ([], ["셋", "넷"], ["셋", "넷"])
    found = lesson04.c20(ignored, unnamed, kept)
    assert found.outcome is Outcome.HOLDS_WHEN
    assert found.because == "the broker keeps messages, and the client says which one it saw last"
    assert found.again is not None
    assert (await found.again()).outcome is Outcome.HOLDS_WHEN
    # A server that does not pass the id on loses messages with every broker.
    assert lesson04.c20(ignored, ignored, ignored).outcome is Outcome.DOES_NOT_HOLD
    # And if nothing gets lost anyway, the claim's first half is wrong.
    assert lesson04.c20(kept, kept, kept).outcome is Outcome.DOES_NOT_HOLD


# --- Work that waits ---


async def work(text: str) -> None:
    await asyncio.sleep(0.01)
    print("done", text, flush=True)


async def in_line(session: Any) -> None:
    async for text in session:
        await work(text)
        await session.send(f"taken: {text}")


async def in_a_queue(session: Any, waiting: Any) -> None:
    async for text in session:
        waiting.put_nowait(text)
        await session.send(f"taken: {text}")


async def work_off(waiting: Any) -> None:
    while True:
        await work(await waiting.get())


async def behind_a_broker(session: Any, broker: Any) -> None:
    async for text in session:
        await broker.publish("work", text.encode())
        await session.send(f"taken: {text}")


async def consume(broker: Any) -> None:
    consumer = await broker.join("work", "workers", "consumer 1")
    async for message in consumer:
        await work(message.body.decode())
        await consumer.ack(message)


async def acknowledge_all_first(broker: Any) -> None:
    consumer = await broker.join("work", "workers", "consumer 1")
    while True:
        taken = await consumer.batch()
        for message in taken:
            await consumer.ack(message)
        for message in taken:
            await work(message.body.decode())


IN_LINE, IN_A_QUEUE = (work, in_line), (work, in_a_queue, work_off)
BEHIND = (work, behind_a_broker, consume)
CARELESS = (work, behind_a_broker, acknowledge_all_first)


@pytest.mark.long
async def test_behind_a_broker_the_answer_does_not_wait_and_a_kill_loses_nothing(redis_on_path: Engine) -> None:
    ways = dict(zip(lesson04.WAYS, (IN_LINE, IN_A_QUEUE, BEHIND), strict=True))
    bursts = {way: await lesson04.burst(redis_on_path.url, *each, messages=20) for way, each in ways.items()}
    kills = {way: await lesson04.killed(redis_on_path.url, *each, messages=20, after=5) for way, each in ways.items()}

    line, queue, broker = bursts.values()
    assert len(line.answered) == len(line.done) == 20
    assert line.answered[-1] > 0.2 > queue.answered[-1]
    assert broker.done[-1] > 0.2
    assert [bool(kills[way].lost) for way in lesson04.WAYS] == [False, True, False]
    found = lesson04.c21(bursts, kills, ways, redis_on_path.url)
    assert (found.outcome, found.again is not None) == (Outcome.HOLDS_WHEN, True)
    # A consumer that acknowledges before it works loses what it holds.
    careless = await lesson04.killed(redis_on_path.url, *CARELESS, messages=20, after=5)
    assert careless.lost
    assert "got lost" in lesson04.c21(bursts, {**kills, lesson04.WAYS[2]: careless}).because
    # A handler that works in line answers late, whatever stands behind it.
    assert "as long as the work" in lesson04.c21({**bursts, lesson04.WAYS[2]: line}, kills).because


def test_without_all_three_ways_the_claim_is_not_tested() -> None:
    assert lesson04.c21({"in line": Burst((1.0,), (1.0,))}, {}).outcome is Outcome.NOT_TESTED


def test_if_the_queue_loses_nothing_either_the_claim_holds_without_a_condition() -> None:
    bursts = {way: Burst((at,), (1.0,)) for way, at in zip(lesson04.WAYS, (1.0, 0.1, 0.1), strict=True)}
    safe = Killed(frozenset({1}), frozenset({1}), frozenset())
    assert lesson04.c21(bursts, dict.fromkeys(lesson04.WAYS, safe)).outcome is Outcome.HOLDS


async def test_a_program_that_never_does_its_work_is_reported_with_what_it_printed(
    redis_on_path: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson04, "PATIENCE", 0.5)
    with pytest.raises(TimeoutError) as late:
        await lesson04.killed(redis_on_path.url, work, in_a_queue, messages=3, after=1)
    assert "The program has printed:" in "".join(late.value.__notes__)


# --- A service that joins ---


async def keep_log(broker: Any) -> None:
    async for message in await broker.subscribe("room"):
        print(message.body.decode(), flush=True)


async def answer(broker: Any) -> None:
    async for message in await broker.subscribe("room"):
        if "heard" not in message.body.decode():
            await broker.publish("room", b"I heard that!")


async def deaf(broker: Any) -> None:
    async for message in await broker.subscribe("another room"):
        print(message.body.decode(), flush=True)


@pytest.mark.long
async def test_services_that_read_leave_the_chat_alone_and_one_that_writes_is_heard_by_all(cluster: Cluster) -> None:
    url = cluster._command[cluster._command.index("--broker") + 1]
    reading = await lesson04.beside(cluster, url, keep_log, messages=20, repeats=2)
    writing = await lesson04.beside(cluster, url, answer, messages=20, repeats=2)
    unheard = await lesson04.beside(cluster, url, deaf, messages=20, repeats=2)

    assert (reading.untouched, reading.extra, writing.extra) == (True, 0, 40)
    assert len(reading.printed["keep_log"]) >= 40
    found = lesson04.c22(steady(reading), writing)
    assert (found.outcome, found.again is not None) == (Outcome.HOLDS_WHEN, True)
    assert lesson04.c22(steady(reading), steady(reading)).outcome is Outcome.HOLDS
    assert lesson04.c22(steady(writing), writing).outcome is Outcome.DOES_NOT_HOLD
    assert "heard nothing" in lesson04.c22(steady(unheard), writing).because


async def test_a_chat_that_was_restarted_for_the_service_was_touched(cluster: Cluster) -> None:
    url = cluster._command[cluster._command.index("--broker") + 1]
    before = tuple(instance.pid for instance in cluster.instances)
    found = await lesson04.beside(cluster, url, keep_log, messages=5, repeats=1)
    await cluster.restart(1)
    after = tuple(instance.pid for instance in cluster.instances)
    touched = Beside(found.sent, found.received, (before, after), found.costs, found.printed)
    assert lesson04.c22(steady(touched), touched).outcome is Outcome.DOES_NOT_HOLD


def test_a_chat_that_works_twice_as_hard_beside_a_service_was_touched() -> None:
    costs = Repeats((0.001, 0.001)), Repeats((0.002, 0.002))
    slowed = Beside(10, (10, 10), ((1,), (1,)), costs, {"log": [""] * 10})
    assert lesson04.c22(slowed, slowed).outcome is Outcome.DOES_NOT_HOLD


def steady(found: Beside) -> Beside:
    """Return what was found, as if a message had cost the same before and after: a busy machine must not decide."""
    costs = Repeats((0.001, 0.001)), Repeats((0.001, 0.001))
    return Beside(found.sent, found.received, found.processes, costs, found.printed, found.again)
