"""Groups in memory: what a member leaves undone is the others', in its old place."""

from __future__ import annotations

import asyncio

from chatlab.brokers.memory import MemoryBroker
from chatlab.brokers.memory_groups import MemoryMember
from tests.support.broker_cases import bodies, read


async def test_what_a_member_leaves_undone_comes_before_what_is_new() -> None:
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
