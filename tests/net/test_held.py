"""What all clients of a server make it hold is added up, and the one that holds most gives way."""

from __future__ import annotations

import logging

import pytest

from chatlab.net.held import Held

log = logging.getLogger("chatlab.tests.held")


class Client:
    def __init__(self) -> None:
        self.told = ""

    def give_up(self, reason: str) -> None:
        self.told = reason


def test_who_holds_most_gives_way_and_the_others_stay() -> None:
    held, small, large, late = Held(log, limit=100), Client(), Client(), Client()
    held.note(small, 20)
    held.note(large, 70)
    held.note(late, 11)
    assert (small.told, late.told) == ("", "") and "unfinished" in large.told
    assert (held.total, held.given_up) == (31, 1)


def test_the_same_client_is_counted_once_and_forgotten_when_it_is_done() -> None:
    held, one = Held(log, limit=100), Client()
    for size in (10, 50, 100, 0):
        held.note(one, size)
        assert held.total == size
    assert one.told == ""


def test_one_alone_that_holds_too_much_gives_way() -> None:
    held, one = Held(log, limit=100), Client()
    held.note(one, 101)
    assert one.told and held.total == 0


def test_a_thousand_who_give_way_are_few_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    held = Held(log, limit=10)
    for _ in range(1000):
        held.note(Client(), 11)
    assert len(caplog.records) <= 10 and held.given_up == 1000
