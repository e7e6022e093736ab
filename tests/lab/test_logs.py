"""The log book keeps the log of the lessons' servers, and keeps it off the page."""

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


def test_the_log_book_keeps_records_from_info_up(book: LogBook) -> None:
    logging.getLogger("chatlab.room").info("%s joined", "가람")
    logging.getLogger("chatlab.room").debug("not this")
    assert book.lines() == ["가람 joined"]


def test_lines_are_selected_by_logger_and_level(book: LogBook) -> None:
    logging.getLogger("chatlab.room").error("broken")
    logging.getLogger("chatlab.roomy").error("another's")
    logging.getLogger("chatlab.room").info("fine")
    assert book.lines("chatlab.room", logging.ERROR) == ["broken"]


def test_the_oldest_records_are_dropped(book: LogBook) -> None:
    for number in range(5):
        logging.getLogger("chatlab").info("%d", number)
    assert book.lines() == ["2", "3", "4"]


def test_an_open_log_book_keeps_the_log_off_stderr(book: LogBook, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("chatlab.room").error("broken")
    assert capfd.readouterr().err == ""
