"""The log book keeps what the lessons' servers log, and keeps it off the page."""

import logging
from collections.abc import Iterator

import pytest

from chatlab.lab.logs import LOGGERS, LogBook


@pytest.fixture
def book() -> Iterator[LogBook]:
    book = LogBook(size=3).open()
    yield book
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(book)


def test_it_keeps_what_chatlab_logs_from_info_on(book: LogBook) -> None:
    logging.getLogger("chatlab.room").info("%s joined", "가람")
    logging.getLogger("chatlab.room").debug("not this")
    assert book.lines() == ["가람 joined"]


def test_it_is_asked_by_logger_and_by_level(book: LogBook) -> None:
    logging.getLogger("chatlab.room").error("broken")
    logging.getLogger("chatlab.roomy").error("another's")
    logging.getLogger("chatlab.room").info("fine")
    assert book.lines("chatlab.room", logging.ERROR) == ["broken"]


def test_it_forgets_the_oldest(book: LogBook) -> None:
    for number in range(5):
        logging.getLogger("chatlab").info("%d", number)
    assert book.lines() == ["2", "3", "4"]


def test_nothing_is_written_to_stderr(book: LogBook, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("chatlab.room").error("broken")
    assert capfd.readouterr().err == ""
