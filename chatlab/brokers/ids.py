"""Ids of records: two numbers, as in "1526919030474-55". Redis Streams made this form; all engines here use it."""

from __future__ import annotations


def parse_id(identifier: str) -> tuple[int, int]:
    """The two numbers, which compare as the ids do. Raises ValueError for anything else: ids come from clients too."""
    first, _, second = identifier.partition("-")
    if not (identifier.isascii() and first.isdigit() and second.isdigit() and len(identifier) <= 41):
        raise ValueError(f"not a record's id: {identifier[:60]!r}")
    return int(first), int(second)
