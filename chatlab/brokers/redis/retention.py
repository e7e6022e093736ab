"""How long Redis keeps what a broker writes: limits by records, octets and age, and an expiry for every key.

    records   XADD … MAXLEN ~ N: at most one node (100 records) more than N
    octets    the same N, chosen from the mean size of the records that this broker publishes to the topic
    age       XADD … MINID ~, in place of MAXLEN, for one record in `CARE` seconds
    a name    EXPIRE: renewed by publishes, once in `CARE` seconds, and as long as the topic has readers

Octets are an estimate. The mean follows the last records (about `MEMORY` of them), so a topic whose records grow or
shrink holds more or less than `max_octets` for a while. In return, no query is sent to the server, and a publish
costs only a few additions more. A topic always keeps as many records as would fit if all had the largest size:
a reader that finds fewer in one reply has not been overtaken (redis/follower.py relies on that).

Left out: sending the commands (redis/streams.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from chatlab.brokers.redis.connections.link import Command

DAY = 86_400.0
CARE = 60.0  # seconds
MEMORY = 64  # records
OVERHEAD = 64  # octets, about, that Redis needs for a record in addition to its body
MAX_TOPICS = 100_000  # whose mean is remembered; a forgotten topic starts over with its next record


@dataclass(slots=True)
class Use:
    """A topic that is published to: the mean size of its records, and when to trim by age and renew it next."""

    mean: float
    next_care: float = 0.0


class Retention:
    """The limits of one broker, and what it knows of its topics.

    `max_age`, `expire`: seconds, 0: no limit. `lasting`: topics that are kept until `max_age` after their last record,
    not only until `expire`. `max_record`: octets of the largest record.
    """

    def __init__(
        self, max_length: int, max_octets: int, max_age: float, expire: float, lasting: Iterable[str], max_record: int
    ) -> None:
        self.at_least = max(1, min(max_length, max_octets // max_record))  # records that are always kept
        self._max_length, self._max_octets = max_length, max_octets
        self._by_length = (b"MAXLEN", b"~", max_length)
        self._small = max_octets / max_length  # a mean at which the limit in records is reached first
        self._max_age, self._expire = max_age, expire
        self._lasting = frozenset(lasting)
        self._care = min([CARE, *(seconds / 4 for seconds in (max_age, expire) if seconds)])
        self._uses: dict[str, Use] = {}

    @property
    def renewal(self) -> float:
        """Return the seconds between two renewals of the topics with readers; 0 if none expire."""
        return min(self._expire / 4, 3600.0)

    def limit(self, topic: str, size: int) -> tuple[bool, tuple[bytes, bytes, int]]:
        """Return whether to renew the topic now, and the trim arguments for the XADD of a record of `size` octets.

        "~" lets the server wait until a whole node can go, which makes it nearly free.
        """
        use = self._uses.get(topic) or self._first_use(topic, size)
        use.mean += (size + OVERHEAD - use.mean) / MEMORY
        now = time.monotonic()
        if now >= use.next_care:
            use.next_care = now + self._care
            return True, self._by_age() if self._max_age else (b"MAXLEN", b"~", self._length(use.mean))
        return False, self._by_length if use.mean <= self._small else (b"MAXLEN", b"~", self._length(use.mean))

    def _first_use(self, topic: str, size: int) -> Use:
        use = self._uses[topic] = Use(size + OVERHEAD)
        if len(self._uses) > MAX_TOPICS:
            del self._uses[next(iter(self._uses))]
        return use

    def _length(self, mean: float) -> int:
        """Return how many records a topic may keep."""
        return self._max_length if mean <= self._small else max(self.at_least, int(self._max_octets / mean))

    def _by_age(self) -> tuple[bytes, bytes, int]:
        return b"MINID", b"~", int((time.time() - self._max_age) * 1000)

    def renew(self, topic: str) -> Command | None:
        """Return the command that renews a topic's time to live; None if it does not expire."""
        seconds = self._max_age if topic in self._lasting else self._expire
        return (b"PEXPIRE", topic, int(seconds * 1000)) if seconds and self._expire else None
