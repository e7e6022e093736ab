"""Background tasks: owned, joined, and reported when they fail."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from chatlab.tasks import Tasks, cancel

log = logging.getLogger("tests.tasks")


async def failing() -> None:
    await asyncio.sleep(0)
    raise ValueError("no such room")


async def test_an_unexpected_end_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    tasks, notified = Tasks(log), list[Exception]()
    task = tasks.start(failing(), name="presence", on_failure=notified.append)
    await asyncio.wait([task])
    await tasks.aclose()
    (record,) = caplog.records
    assert record.getMessage() == "background task 'presence' failed"
    assert record.exc_info is not None and "no such room" in str(record.exc_info[1])
    assert [str(error) for error in notified] == ["no such room"]
    assert tasks.fault == "background task 'presence' failed: ValueError('no such room')"


async def test_the_first_fault_is_kept() -> None:
    tasks = Tasks(log)
    await asyncio.wait([tasks.start(failing(), name="first")])
    await asyncio.wait([tasks.start(failing(), name="second")])
    assert "'first'" in tasks.fault


async def test_a_task_that_ends_or_is_cancelled_is_not_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks(log)
    await tasks.start(asyncio.sleep(0), name="short")
    tasks.start(asyncio.sleep(3600), name="long")
    await tasks.aclose()
    assert not tasks.fault and not caplog.records and not len(tasks)


async def test_a_running_task_is_not_collected_as_garbage() -> None:
    tasks, done = Tasks(log), asyncio.Event()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()  # no other reference to this future exists

    task = tasks.start(work(), name="work")
    task.add_done_callback(lambda _: done.set())
    del task
    gc.collect()
    assert len(tasks) == 1
    await tasks.aclose()
    assert done.is_set()


async def test_closing_waits_for_a_tasks_cleanup() -> None:
    tasks, steps = Tasks(log), []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await tasks.aclose()
    await tasks.aclose()
    assert steps == ["cleaned up"]


async def test_closing_from_inside_a_task_does_not_wait_for_itself() -> None:
    tasks = Tasks(log)
    await asyncio.wait_for(tasks.start(tasks.aclose(), name="closer"), 5)


async def test_join_gives_tasks_time_to_end_by_themselves() -> None:
    tasks = Tasks(log)
    short, long = tasks.start(asyncio.sleep(0.01), name="short"), tasks.start(asyncio.sleep(3600), name="long")
    await tasks.join(timeout=0.2)
    assert short.done() and not long.done()
    await tasks.aclose()


async def test_a_swallowed_cancellation_is_repeated() -> None:
    swallowed: list[str] = []

    async def work() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append("once")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await cancel(task)
    assert task.cancelled() and swallowed


async def test_cancelling_an_ended_task_does_nothing() -> None:
    await cancel(None)
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await cancel(task)
