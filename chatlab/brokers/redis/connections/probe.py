"""Whether Redis would serve a new client now: tried over a new connection, at most once every `FRESH` seconds.

An open connection proves little. Redis at its `maxclients` rejects new connections; out of memory, as a replica, or
with a full disk, it refuses writes and still answers PING. The readiness check (`/readyz`) must notice. The probe runs
the same commands as the check at the start (`server.py`): it changes no key.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from chatlab.brokers.redis.connections.server import Needs, why_refused

log = logging.getLogger(__name__)

FRESH = 2.0  # seconds for which an answer is cached: several load balancers may ask every second
PATIENCE = 2.0  # seconds that Redis has to answer


class Probe:
    """The last answer for one server, cached. `needs`: the commands that must work."""

    def __init__(self, url: str, needs: Needs) -> None:
        self._url = url
        self._needs = needs
        self._known = ""
        self._asked = -math.inf  # on the clock `time.monotonic`
        self._one_at_a_time = asyncio.Lock()

    async def why_refused(self) -> str:
        """Return "" if a new client would be served, else why not."""
        async with self._one_at_a_time:
            if time.monotonic() - self._asked >= FRESH:
                known = await why_refused(self._url, PATIENCE, self._needs)
                self._asked = time.monotonic()
                if known != self._known:
                    log.warning("%s", known or "the broker serves new clients again")
                self._known = known
        return self._known
