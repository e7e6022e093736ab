"""Background tasks with an owner: none is forgotten, and none fails unnoticed.

    self._tasks = Tasks(log)
    self._tasks.start(self._run(), name="redis follower", on_failure=self._end_readers)
    self._tasks.fault             "" while no task has failed, else which one failed and why
    await self._tasks.aclose()    cancel the running tasks and wait for them

A task that raises an exception has a bug: expected errors are handled inside it. The exception is logged once, with its
traceback, and stays in `fault`, which makes an instance of the chat unready (`/readyz`). `on_failure` notifies code
that depends on the task.

Left out: restarting failed tasks. A task retries the errors it can recover from itself (retry.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """The background tasks of one owner, which must close them."""

    def __init__(self, log: logging.Logger) -> None:
        self.fault = ""  # the first task that failed, and its error
        self._log = log
        self._running: set[asyncio.Task[Any]] = set()  # strong references; the event loop holds only weak ones

    def __len__(self) -> int:
        return len(self._running)

    def start(
        self, work: Coroutine[Any, Any, T], *, name: str, on_failure: Callable[[Exception], None] | None = None
    ) -> asyncio.Task[T]:
        """Run `work` in the background. If it raises, log the error and call `on_failure` with it."""

        def ended(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            if task.cancelled() or (error := task.exception()) is None:
                return
            self.fault = self.fault or f"background task {name!r} failed: {error!r}"
            self._log.critical("background task %r failed", name, exc_info=error)
            if on_failure is not None and isinstance(error, Exception):
                on_failure(error)

        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(ended)
        return task

    async def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the running tasks to end by themselves."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)

    async def aclose(self) -> None:
        """Cancel every task, and wait until all have ended. Safe to call twice, and from one of the tasks."""
        while running := self._running - {asyncio.current_task()}:
            await asyncio.gather(*(cancel(task) for task in running))


async def cancel(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended. Do nothing for None or a task that has ended.

    One cancellation may not suffice: Python 3.11's `asyncio.wait_for` can swallow it.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
