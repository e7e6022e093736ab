"""A function gives in another process what it gives there, with its helpers and without this process's memory."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from chatlab.lab.exercises.support.elsewhere import CannotMove, DiedElsewhere, elsewhere, packed

FACTOR = 3
seen: list[str] = []


def helped(text: str) -> int:
    return factor() * len(text)


def factor() -> int:
    return FACTOR


async def in_two_processes(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[list[Any]]:
    parcel = packed(function)
    return [await elsewhere(parcel, calls, seed=seed) for seed in (1, 2)]


async def test_a_function_travels_with_its_helpers_its_constants_and_its_modules() -> None:
    times = 2

    def answer(text: str, more: int = 1, *, last: float = 0.5) -> float:
        import json

        return times * helped(text) + more + math.floor(last) + len(json.dumps(text)) + zlib.crc32(b"")

    assert await in_two_processes(answer, ("ab",), ("abc", 4)) == [[17, 27]] * 2
    assert [answer("ab"), answer("abc", 4)] == [17, 27]


async def test_hash_differs_between_processes_by_whatever_road_it_is_reached() -> None:
    def dunder(text: str) -> int:
        return text.__hash__()

    def by_a_set(text: str) -> str:
        return next(iter({f"{text}{number}" for number in range(100)}))

    for answer in (hash_of, dunder, by_a_set):
        one, other = await in_two_processes(answer, ("안녕",))
        assert one != other


def hash_of(text: str) -> int:
    return hash(text)


async def test_what_a_function_remembers_travels_as_it_was_when_it_was_packed() -> None:
    def count(text: str) -> int:
        seen.append(text)
        return len(seen)

    parcel = packed(count)
    count("here")
    assert await elsewhere(parcel, [("a",), ("b",)], seed=1) == [1, 2]


async def test_what_cannot_travel_is_said() -> None:
    lock = iter(x for x in "abc")
    for answer in (len, lambda text: next(lock)):
        with pytest.raises(CannotMove):
            packed(answer)


async def test_an_error_and_an_exit_elsewhere_are_reported() -> None:
    def fails(text: str) -> float:
        return 1 / len(text)

    def leaves(text: str) -> None:
        import os

        os._exit(3)

    with pytest.raises(DiedElsewhere, match="ZeroDivisionError"):
        await elsewhere(packed(fails), [("",)], seed=1)
    with pytest.raises(DiedElsewhere):
        await elsewhere(packed(leaves), [("",)], seed=1)


async def test_what_a_function_prints_does_not_disturb_its_results() -> None:
    def talks(text: str) -> str:
        print("hello", text)
        return text

    assert await in_two_processes(talks, ("a",)) == [["a"]] * 2
