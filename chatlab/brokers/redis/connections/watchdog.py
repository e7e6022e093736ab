"""A timeout for a task that waits thousands of times a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self


class Watchdog:
    """`asyncio.timeout` for one waiter at a time: `with watchdog(seconds): await …` raises TimeoutError in time.

    asyncio's timeout makes and cancels a timer for each wait. Here the timer stays: when it fires early, it is set
    again for the current wait, if there is one.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None  # the waiting task
        self._deadline = 0.0  # on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._cancels = 0  # cancellations requested before the wait began
        self._expired = False

    def __call__(self, seconds: float) -> Self:
        """Set the timeout of the next wait."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._expired = False
        if self._task is not None:
            self._cancels = self._task.cancelling()
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # If another caller has cancelled the task too, it must end, as with `asyncio.timeout`.
        if self._expired and task is not None and task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def stop(self) -> None:
        """Cancel the timer: no wait is expected soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_at(self._deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._task is None:
            return  # the next wait sets the timer
        if asyncio.get_running_loop().time() < self._deadline:
            self._set_timer()
        else:
            self._expired = True
            self._task.cancel()
