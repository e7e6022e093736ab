"""JSON that somebody else wrote: a client, or another program on the same engine.

    parse(json.loads, body)             what `body` says, or ValueError, whatever is wrong with it
    parse(decoder.decode, body)         the same with msgspec

A decoder has one more way to fail than "not JSON": values nested deeper than Python's recursion limit are a
RecursionError, which is no ValueError. Nothing that comes from outside may end a task by that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def parse(decode: Callable[[bytes], T], data: bytes) -> T:
    """Return `decode(data)`. Raises ValueError (msgspec's errors and UnicodeDecodeError are ValueErrors)."""
    try:
        return decode(data)
    except RecursionError:
        raise ValueError(f"JSON nested too deeply ({len(data)} octets)") from None
