"""The surroundings of a learner's loop: it is watched and stopped, and its own error is raised first."""

import asyncio

import pytest

from chatlab.lab.clients import RoomClient
from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.exercises.support.rooms import (
    JoinedRoom,
    Outbox,
    RoomWithOutbox,
    Running,
    at_work,
    first_few,
    in_one_order,
    must_wait,
    received_by,
    said,
    soon,
    two_servers,
)


async def ends() -> None: ...


async def fails() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises())


async def raises() -> None:
    raise ValueError("the learner's own")


async def lives() -> None:
    await asyncio.Event().wait()


async def test_a_loop_that_ends_by_itself_breaks_a_rule() -> None:
    with pytest.raises(NotYet, match="the bridge runs until it is stopped"):
        async with at_work(ends(), what="the bridge") as running:
            await soon(lambda: False, running)


async def test_an_error_in_the_learners_loop_is_raised_unwrapped_instead_of_the_rule_that_it_broke() -> None:
    with pytest.raises(ValueError, match="the learner's own"):
        async with at_work(lives(), fails(), what="the bridge") as running:
            await soon(lambda: False, running)
            raise NotYet("nobody received anything")


async def test_no_loop_outlives_a_failed_check() -> None:
    with pytest.raises(NotYet):
        async with at_work(lives(), lives(), what="the bridge") as running:
            raise NotYet("something else")
    assert all(each.task.cancelled() for each in running)


async def test_a_loop_that_ignores_its_cancellation_breaks_a_rule() -> None:
    async def ignores_cancellation() -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    running = Running(ignores_cancellation(), "the bridge")
    await asyncio.sleep(0)
    with pytest.raises(NotYet, match="ends when it is cancelled"):
        await running.stop()
    running.task.cancel()
    await asyncio.wait([running.task])


def test_an_answer_that_must_wait_must_be_a_coroutine_function() -> None:
    must_wait(lives)
    with pytest.raises(NotYet, match="`async def`"):
        must_wait(lambda: None)


async def test_an_outbox_keeps_a_line_until_it_is_removed() -> None:
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.first())
    await asyncio.sleep(0)
    outbox.put("하나")
    outbox.put("둘")
    key, line = await waiting
    assert (key, line) == await outbox.first()
    assert (line, len(outbox)) == ("하나", 2)
    outbox.remove(key)
    outbox.remove(key)
    again, line = await outbox.first()
    assert (line, len(outbox)) == ("둘", 1)
    assert again != key


async def test_a_text_waits_for_the_bridge_and_reaches_members_when_it_is_delivered() -> None:
    async with two_servers(JoinedRoom) as (queued, _), two_servers(RoomWithOutbox) as (boxed, _):
        assert isinstance(queued.room, JoinedRoom)
        assert isinstance(boxed.room, RoomWithOutbox)
        for server in (queued, boxed):
            client = RoomClient(server.url, "가람")
            await client.connect()
            await client.send("안녕")
            await client.until(lambda client=client: bool(client.received))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            assert said(client) == []
            await client.vanish()
        assert await asyncio.wait_for(queued.room.outgoing.get(), 5) == "Server received from 가람: 안녕"
        _, line = await asyncio.wait_for(boxed.room.outbox.first(), 5)
        client = RoomClient(boxed.url, "Nuri")
        await client.connect()
        boxed.room.deliver(line)
        await client.heard("안녕")
        assert received_by(client) == "Nuri received ['가람: 안녕']"
        await client.vanish()


def test_the_first_difference_between_two_clients_is_shown_with_its_number() -> None:
    one, other = RoomClient("ws://", "가람"), RoomClient("ws://", "Nuri")
    for client, texts in ((one, ("하나", "둘")), (other, ("하나", "셋"))):
        for text in texts:
            client.note(f"Server received from 하늘: {text}", "received")
    with pytest.raises(NotYet, match="in one order") as caught:
        in_one_order(one, other)
    assert caught.value.evidence == "as text number 2, 가람 received '하늘: 둘', and Nuri received '하늘: 셋'"


def test_a_long_list_of_texts_is_cut_after_twenty() -> None:
    assert first_few(["안녕", "👋"]) == "['안녕', '👋']"
    assert first_few(["again"] * 2000).endswith("'again'] and 1980 more")
