"""Trying again: the one loop around everything that can fail and then work.

    retry = Retry(on=BrokerUnavailable, on_failure=lambda error, wait: log.warning("waiting %.1f s: %s", wait, error))
    async for attempt in retry:
        with attempt:
            subscription = await broker.subscribe(topic)
            async for record in subscription:
                retry.reset()  # it worked: the next failure is the first of another outage

The loop ends when the body ends without an error. An error named by `on` is kept for the next round, which comes after
a wait that doubles each time and is never the same for two clients, so that not all of them come back at one moment.
Any other error is raised, and so is `BrokerClosed`: what is closed stays closed.

Why not stamina or tenacity: both count attempts of something that succeeds once. Most of what retries here reads for
hours between two failures, and has to say in the middle of an attempt that this one has worked.
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
    """How long to wait after each failure in a row, in seconds: `first`, then twice as long each time, to `longest`."""

    first: float = 0.1
    longest: float = 5.0

    def delay(self, failures: int) -> float:
        """Return the wait after that many failures in a row (1 is the first): between half of the figure and all."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 64)) * random.uniform(0.5, 1.0)


class Retry:
    """One operation's attempts; see above.

    `on_failure` is called with the error and the seconds until the next attempt. With `within`, an error that comes
    that many seconds after the first one in a row, or later, is raised.
    """

    def __init__(
        self,
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        backoff: Backoff = Backoff(),
        within: float | None = None,
        on_failure: Callable[[Exception, float], None] | None = None,
    ) -> None:
        self.failures = 0  # in a row
        self._on = on
        self._backoff = backoff
        self._within = within
        self._on_failure = on_failure
        self._succeeded = False
        self._wait = 0.0
        self._first_failure = 0.0  # on the loop's clock

    def reset(self) -> None:
        """Note that the operation works: a failure from now on is the first in a row."""
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
