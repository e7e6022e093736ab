"""Decoding of untrusted JSON: from a client, or from another program on the same engine.

    parse(json.loads, body)             the value of `body`, or ValueError for any fault in it
    parse(decoder.decode, body)         the same with msgspec

Input that is not JSON raises ValueError. But values nested deeper than Python's recursion limit raise RecursionError,
which is not a ValueError and could end a task unexpectedly. `parse` turns it into a ValueError.
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
