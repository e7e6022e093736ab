"""Whether an engine would serve a new client now: tried, at most once every `FRESH` seconds.

    probe = Probe(ask)               # `ask` does what a new client needs; "" if that works, else why not
    await probe.why_refused()

An open connection proves little. An engine may serve those it has and refuse new connections, new readers or writes,
and still answer a ping. The readiness check (`/readyz`) must notice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FRESH = 2.0  # seconds for which an answer is cached: several load balancers may ask every second
PATIENCE = 2.0  # seconds that an engine has to answer


class Probe:
    """The last answer, cached. `ask` changes nothing that a client could see."""

    def __init__(self, ask: Callable[[], Awaitable[str]]) -> None:
        self._ask = ask
        self._known = ""
        self._asked = -math.inf  # on the clock `time.monotonic`
        self._one_at_a_time = asyncio.Lock()

    async def why_refused(self) -> str:
        """Return "" if a new client would be served, else why not."""
        async with self._one_at_a_time:
            if time.monotonic() - self._asked >= FRESH:
                known = await self._ask()
                self._asked = time.monotonic()
                if known != self._known:
                    log.warning("%s", known or "the broker serves new clients again")
                self._known = known
        return self._known
