"""Record ids, and names that every engine accepts."""

from __future__ import annotations

import hashlib
import re

from chatlab.errors import BrokerError


def parse_id(identifier: str) -> tuple[int, int]:
    """Return the two numbers of an id such as "1526919030474-55"; they sort as the ids do.

    The form is Redis Streams'; all engines here use it. Raises ValueError for anything else: ids also come from
    clients.
    """
    first, _, second = identifier.partition("-")
    if not (identifier.isascii() and first.isdigit() and second.isdigit() and len(identifier) <= 41):
        raise ValueError(f"not a record id: {identifier[:60]!r}")
    return int(first), int(second)


def shortened(name: str, longest: int) -> str:
    """Return what `escaped` does; for a name too long for that, `@` (which it never returns) and a digest."""
    if len(name.encode()) > longest or 0 < len(text := escaped(name, 3 * longest)) > longest:
        return "@" + hashlib.sha256(name.encode()).hexdigest()
    return text


def escaped(name: str, longest: int) -> str:
    """Return the name in letters, digits, `.` and `-`; any other octet becomes `_` and two hexadecimal digits.

    Different names stay different. Raises BrokerError if the result is empty or longer than `longest` characters.
    """
    safe = re.sub(rb"[^A-Za-z0-9.-]", lambda octet: b"_" + octet[0].hex().encode(), name.encode()).decode()
    if not 0 < len(safe) <= longest or safe in (".", ".."):
        raise BrokerError(f"not a valid topic for this engine (1 to {longest} characters): {name[:60]!r}")
    return safe
