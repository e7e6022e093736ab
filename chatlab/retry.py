"""The retry loop, with exponential backoff, around every operation that can fail and later succeed.

    retry = Retry(on=BrokerUnavailable, on_failure=lambda error, wait: log.warning("waiting %.1f s: %s", wait, error))
    async for attempt in retry:
        with attempt:
            subscription = await broker.subscribe(topic)
            async for record in subscription:
                retry.reset()  # it works: the next failure starts a new outage

The loop ends when its body ends without an error. After an error named by `on`, the body runs again, after a wait that
doubles each time. The wait has random jitter, so that clients do not all reconnect at the same moment. Any other error
is raised, and so is `BrokerClosed`, because a closed broker stays closed.

Why not stamina or tenacity: both count the attempts of an operation that succeeds once. Most operations here run for
hours between two failures, and have to report success in the middle of an attempt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from chatlab.errors import BrokerClosed


@dataclass(frozen=True)
class Backoff:
    """The wait after each consecutive failure, in seconds: `first`, then doubled each time, up to `longest`."""

    first: float = 0.1
    longest: float = 5.0

    def delay(self, failures: int) -> float:
        """Return the wait after that many consecutive failures (1 is the first), with jitter: 50 to 100 % of it."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 64)) * random.uniform(0.5, 1.0)


class Retry:
    """The attempts of one operation; see above.

    `on_failure` is called with the error and the seconds until the next attempt. With `within`, an error is raised if
    it occurs at least that many seconds after the first of the current consecutive failures.
    """

    def __init__(
        self,
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        backoff: Backoff = Backoff(),
        within: float | None = None,
        on_failure: Callable[[Exception, float], None] | None = None,
    ) -> None:
        self.failures = 0  # consecutive ones
        self._on = on
        self._backoff = backoff
        self._within = within
        self._on_failure = on_failure
        self._succeeded = False
        self._wait = 0.0
        self._first_failure = 0.0  # on the loop's clock

    def reset(self) -> None:
        """Record a success: the next failure is the first of a new series."""
        self.failures = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._succeeded:
            raise StopAsyncIteration
        if self._wait:
            await asyncio.sleep(self._wait)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._succeeded = True
            return False
        if isinstance(error, BrokerClosed) or not isinstance(error, self._on):
            return False
        now = asyncio.get_running_loop().time()
        self._first_failure = self._first_failure if self.failures else now
        if self._within is not None and now - self._first_failure >= self._within:
            return False
        self.failures += 1
        self._wait = self._backoff.delay(self.failures)
        if self._on_failure is not None:
            self._on_failure(error, self._wait)
        return True
