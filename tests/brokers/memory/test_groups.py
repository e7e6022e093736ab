"""Groups in memory: what a member leaves undone is the others', in its old place."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.memory.groups import MemoryMember
from chatlab.errors import BrokerUnavailable
from tests.support.broker_cases import bodies, read


async def test_unacknowledged_records_of_a_member_come_before_new_ones() -> None:
    async with MemoryBroker() as broker:
        first, second = await broker.join("t", "g", "first"), await broker.join("t", "g", "second")
        assert isinstance(first, MemoryMember)
        for n in range(4):
            await broker.publish("t", b"%d" % n)
        taken = await read(first, 3)
        await first.ack(taken[1])
        await first.aclose()
        assert await bodies(second, 3) == [b"0", b"2", b"3"]


async def test_of_two_members_that_wait_one_gets_the_record() -> None:
    async with MemoryBroker() as broker:
        members = [await broker.join("t", "g", name) for name in "ab"]
        waiting = [asyncio.create_task(member.batch()) for member in members]
        await asyncio.sleep(0)
        await broker.publish("t", b"x")
        done, pending = await asyncio.wait(waiting, timeout=0.05)
        assert [[record.body for record in task.result()] for task in done] == [[b"x"]]
        (other,) = pending
        await broker.publish("t", b"y")
        assert [record.body for record in await other] == [b"y"]


@pytest.mark.parametrize("how", ["member", "broker"])
async def test_a_waiting_member_returns_when_it_or_its_broker_is_closed(how: str) -> None:
    async with MemoryBroker() as broker:
        members = [await broker.join("t", "g", name) for name in "ab"]
        waiting = [asyncio.create_task(member.batch()) for member in members]
        await asyncio.sleep(0)
        if how == "broker":
            await broker.aclose()
        else:
            for member in members:
                await member.aclose()
        async with asyncio.timeout(1):
            assert [await task for task in waiting] == [[], []]
            assert await members[0].batch() == []


async def test_a_full_group_refuses_new_records_and_keeps_waiting_ones() -> None:
    async with MemoryBroker(max_length=3) as broker:
        member = await broker.join("t", "g", "m")
        for n in range(3):
            await broker.publish("t", b"%d" % n)
        for publish in (broker.publish("t", b"no"), broker.publish_once("t", b"no", "key")):
            with pytest.raises(BrokerUnavailable, match="the group 'g' is full: 3 records of t wait") as refused:
                await publish
            assert not refused.value.outcome_unknown
        assert await bodies(member, 3) == [b"0", b"1", b"2"]
        await broker.publish_once("t", b"3", "key")
        assert await bodies(member, 1) == [b"3"]
        assert [record.body for record in await broker.history("t")] == [b"1", b"2", b"3"]
