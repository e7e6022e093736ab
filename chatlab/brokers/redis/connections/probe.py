"""Whether Redis would serve a new client now: tried over a new connection, at most once in a while.

A connection that is open says little. Redis at its `maxclients` turns every further one away; out of memory, as a
replica, or with a full disk it refuses each write and goes on answering PING. Whoever asks whether clients should be
sent here (`/readyz`) must know. What is tried is what was tried at the start (`server.py`): it changes no key.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from chatlab.brokers.redis.connections.server import Needs, why_refused

log = logging.getLogger(__name__)

FRESH = 2.0  # seconds for which an answer holds: balancers ask each second, and several of them may
PATIENCE = 2.0  # seconds that Redis has


class Probe:
    """The last answer for one server, and when it was found. `needs`: what has to work."""

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
