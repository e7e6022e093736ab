"""Ways to split the same bytes: a parser must give the same result for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Split = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def in_threes(data: bytes) -> list[bytes]:
    return [data[i : i + 3] for i in range(0, len(data), 3)]


SPLITS: list[Split] = [whole, byte_by_byte, in_threes]
