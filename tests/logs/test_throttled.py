"""The log has a line for each of a few refusals, and one line with the number of many."""

from __future__ import annotations

import logging

import pytest

from chatlab.lab.until import until
from chatlab.logs.setup import log_to_stderr
from chatlab.logs.throttled import ThrottledLog

log = logging.getLogger("chatlab.tests.seldom")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_lines_of_a_kind_are_logged_and_the_rest_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = ThrottledLog(log, lines=3, seconds=10, clock=clock)
    with caplog.at_level(logging.INFO):
        for number in range(2000):
            refusals.info("refused %d", number)
        assert caplog.messages == ["refused 0", "refused 1", "refused 2"]
        clock.now = 10
        refusals.info("refused %d", 2000)
    assert caplog.messages[3:] == ["refused %d: and 1,997 more in the last 10 s", "refused 2000"]


def test_one_kind_does_not_silence_another(caplog: pytest.LogCaptureFixture) -> None:
    refusals = ThrottledLog(log, lines=1, clock=Clock())
    with caplog.at_level(logging.INFO):
        for message in ("a", "b", "a"):
            refusals.info(message)
        refusals.warning("a")
    assert caplog.messages == ["a", "b", "a"]


async def test_the_count_is_logged_at_the_end_of_the_window_without_further_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = ThrottledLog(log, lines=1, seconds=0.05)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            refusals.info("refused", extra={"peer": "192.0.2.7"})
        await until(lambda: len(caplog.messages) == 2)
    assert caplog.messages == ["refused", "refused: and 4 more in the last 0.05 s"]


def test_client_input_creates_no_new_kind(caplog: pytest.LogCaptureFixture) -> None:
    refusals = ThrottledLog(log, lines=1, clock=Clock())
    with caplog.at_level(logging.INFO):
        for number in range(1000):
            refusals.info("refused %s", f"name {number}", extra={"name_of_it": number})
        refusals.flush()
    assert caplog.messages == ["refused name 0", "refused %s: and 999 more in the last 10 s"]


def test_lines_below_the_log_level_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    refusals = ThrottledLog(log, lines=1, clock=Clock())
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            refusals.info("refused")
        refusals.flush()
    assert caplog.messages == []


def test_the_count_is_logged_as_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log_to_stderr()
        refusals = ThrottledLog(logging.getLogger("chatlab.x"), lines=1, clock=Clock())
        for _ in range(3):
            refusals.warning("no such page")
        refusals.flush()
    finally:
        root.handlers[:], root.level = handlers, level
    assert capsys.readouterr().err.splitlines()[1].endswith("no such page: and 2 more in the last 10 s")
