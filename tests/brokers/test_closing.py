"""What a closed broker does, on every engine: nothing more, at once, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from chatlab.brokers.port import BEGINNING, Broker, Deduplicates, HasGroups, HasPresence, KeepsHistory
from chatlab.errors import BrokerClosed, BrokerError
from tests.support.broker_cases import HAVE_GROUPS, KEEP_HISTORY, Case, bodies, publish_all, topic


def calls(broker: Broker, name: str) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every call of the port that this engine has."""
    able: dict[str, Callable[[], Awaitable[object]]] = {
        "publish": lambda: broker.publish(name, b"x"),
        "subscribe": lambda: broker.subscribe(name),
    }
    if isinstance(broker, KeepsHistory):
        able["subscribe after"] = lambda: broker.subscribe(name, after=BEGINNING)
        able["history"] = lambda: broker.history(name)
        able["oldest"] = lambda: broker.oldest(name)
        able["lost_after"] = lambda: broker.lost_after(name, "1-0")
    if isinstance(broker, Deduplicates):
        able["publish_once"] = lambda: broker.publish_once(name, b"x", "key")
    if isinstance(broker, HasGroups):
        able["join"] = lambda: broker.join(name, "group", "member")
    if isinstance(broker, HasPresence):
        able["announce"] = lambda: broker.announce(name, "who", "note", 1)
        able["present"] = lambda: broker.present(name)
    return able


async def test_every_call_of_a_closed_broker_says_at_once_that_it_is_closed(case: Case) -> None:
    broker, name = await case.broker(), topic()
    await broker.publish(name, b"before")
    await broker.aclose()
    for what, call in calls(broker, name).items():
        async with asyncio.timeout(2):
            with pytest.raises(BrokerClosed):
                await call()
                pytest.fail(f"{what} of a closed broker returned")


async def test_a_group_members_batch_ends_with_its_broker(case: Case) -> None:
    broker = await case.broker()
    if not isinstance(broker, HasGroups):
        assert case.name not in HAVE_GROUPS
        return
    member = await broker.join(topic(), "group", "member")
    waiting = asyncio.create_task(member.batch())
    await asyncio.sleep(0)
    await broker.aclose()
    async with asyncio.timeout(5):
        assert list(await waiting) == []
        assert list(await member.batch()) == []


@pytest.mark.parametrize("after", [None, BEGINNING])
async def test_a_reader_that_waits_is_ended_by_its_broker(case: Case, after: str | None) -> None:
    broker, name = await case.broker(), topic()
    if after is not None and not isinstance(broker, KeepsHistory):
        return
    reader = await (broker.subscribe(name, after=after) if isinstance(broker, KeepsHistory) else broker.subscribe(name))
    waiting = asyncio.create_task(reader.batch())
    await asyncio.sleep(0.01)
    await broker.aclose()
    async with asyncio.timeout(5):
        assert list(await waiting) == []


async def test_history_that_is_being_read_ends_with_its_broker(case: Case) -> None:
    broker, name = await case.broker(), topic()
    if not isinstance(broker, KeepsHistory):
        assert case.name not in KEEP_HISTORY
        return
    await publish_all(broker, name, [b"%d" % number for number in range(3000)])
    for turns in range(0, 40, 4):
        reader = broker if turns == 36 else await second(case)
        assert isinstance(reader, KeepsHistory)
        reading = asyncio.create_task(reader.history(name))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        if case.engine is not None or turns == 36:
            await reader.aclose()
        async with asyncio.timeout(5):
            try:
                assert len(await reading) == 3000
            except BrokerError as error:
                assert isinstance(error, BrokerClosed)


async def second(case: Case) -> Broker:
    """Another broker on the same engine, to be closed; in memory there is only the one."""
    return await case.broker()


async def test_closing_one_broker_leaves_the_others_of_its_engine_alone(case: Case) -> None:
    if case.engine is None:
        return
    one, other, name = await case.broker(), await case.broker(), topic()
    reader = await other.subscribe(name)
    await one.aclose()
    await other.publish(name, b"still here")
    assert await bodies(reader, 1) == [b"still here"]


async def test_subscribing_while_the_broker_closes_does_not_hang(case: Case) -> None:
    name = topic()
    for turns in range(12):
        broker = await case.broker()
        if broker is not case.open[-1] or case.engine is None:
            return
        subscribing = asyncio.create_task(broker.subscribe(name))
        for _ in range(turns):
            await asyncio.sleep(0)
        await broker.aclose()
        async with asyncio.timeout(5):
            with contextlib.suppress(BrokerError):
                assert list(await (await subscribing).batch()) == []
