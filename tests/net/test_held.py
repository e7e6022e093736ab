"""The octets that a server holds for all its clients are added up, and the largest holder is dropped."""

from __future__ import annotations

import logging

import pytest

from chatlab.net.held import HeldOctets

log = logging.getLogger("chatlab.tests.held")


class Client:
    def __init__(self) -> None:
        self.reason = ""

    def drop(self, reason: str) -> None:
        self.reason = reason


def test_the_largest_holder_is_dropped_and_the_others_stay() -> None:
    held, small, large, late = HeldOctets(log, limit=100), Client(), Client(), Client()
    held.update(small, 20)
    held.update(large, 70)
    held.update(late, 11)
    assert (small.reason, late.reason) == ("", "") and "unfinished" in large.reason
    assert (held.total, held.dropped) == (31, 1)


def test_a_client_counts_once_and_is_removed_when_it_holds_nothing() -> None:
    held, client = HeldOctets(log, limit=100), Client()
    for size in (10, 50, 100, 0):
        held.update(client, size)
        assert held.total == size
    assert client.reason == ""


def test_a_single_holder_over_the_limit_is_dropped() -> None:
    held, client = HeldOctets(log, limit=100), Client()
    held.update(client, 101)
    assert client.reason and held.total == 0


def test_a_thousand_dropped_holders_make_few_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldOctets(log, limit=10)
    for _ in range(1000):
        held.update(Client(), 11)
    assert len(caplog.records) <= 10 and held.dropped == 1000
