"""A time limit for somebody who waits thousands of times a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self


class Watchdog:
    """`asyncio.timeout` for one waiter at a time: `with watchdog(seconds): await …` raises TimeoutError in time.

    asyncio's makes a timer for each wait and cancels it. This one's timer stays: when it runs out, it is set anew for
    the wait under way, if there is one.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None  # who waits
        self._deadline = 0.0  # of the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._cancels = 0  # how often others had asked the waiter to end, when it began to wait
        self._bitten = False

    def __call__(self, seconds: float) -> Self:
        """The limit of the next wait."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._bitten = False
        if self._task is not None:
            self._cancels = self._task.cancelling()
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # Where somebody else has cancelled it as well, it is to end, as with `asyncio.timeout`.
        if self._bitten and task is not None and task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def stop(self) -> None:
        """Nobody will wait for some time: no timer is needed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return  # the next wait sets it
        if asyncio.get_running_loop().time() < self._deadline:
            self._set_timer()
        else:
            self._bitten = True
            self._task.cancel()
