"""Ids of records, and names that every engine allows."""

from __future__ import annotations

import re

from chatlab.errors import BrokerError


def parse_id(identifier: str) -> tuple[int, int]:
    """The two numbers of an id such as "1526919030474-55", which compare as the ids do.

    Redis Streams made this form; all engines here use it. Raises ValueError for anything else: ids come from clients
    too.
    """
    first, _, second = identifier.partition("-")
    if not (identifier.isascii() and first.isdigit() and second.isdigit() and len(identifier) <= 41):
        raise ValueError(f"not a record's id: {identifier[:60]!r}")
    return int(first), int(second)


def escaped(name: str, longest: int) -> str:
    """The name in letters, digits, `.` and `-`; any other octet becomes `_` and two hexadecimal digits.

    Two names never become one. Raises BrokerError if nothing is left, or more than `longest` characters.
    """
    safe = re.sub(rb"[^A-Za-z0-9.-]", lambda octet: b"_" + octet[0].hex().encode(), name.encode()).decode()
    if not 0 < len(safe) <= longest or safe in (".", ".."):
        raise BrokerError(f"not a topic for this engine (1 to {longest} characters): {name[:60]!r}")
    return safe
