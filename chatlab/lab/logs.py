"""The log of a lesson's servers and clients, kept for a later cell to show.

A background task must not print: its output would appear under whichever cell is running. So in a notebook `LOGGERS`
write into a `LogBook`, and a cell asks for the lines it is about.
"""

from __future__ import annotations

import logging
from collections import deque

__all__ = ["LogBook"]

LOGGERS = ("chatlab", "websockets", "aiokafka", "aio_pika", "aiormq")


class LogBook(logging.Handler):
    """The last records of `LOGGERS`, oldest first."""

    def __init__(self, size: int = 1000) -> None:
        super().__init__(logging.INFO)
        self.records: deque[logging.LogRecord] = deque(maxlen=size)

    def open(self) -> LogBook:
        """Start keeping records; unless there is another handler, nothing is written to the cell's stderr any more."""
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        logging.getLogger("chatlab").setLevel(logging.INFO)
        return self

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.records.append(record)

    def lines(self, logger: str = "", level: int = logging.INFO) -> list[str]:
        """Return the messages of `logger` and the loggers below it, at `level` and above, oldest first."""
        return [
            record.getMessage()
            for record in self.records
            if record.levelno >= level and (not logger or f"{record.name}.".startswith(f"{logger}."))
        ]
