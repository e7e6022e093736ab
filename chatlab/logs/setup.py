"""What a server writes to standard error: a line for each event, for people or, as JSON, for programs.

The facts of an event are the record's extra fields: `logger.info("connected", extra={"user": name})`. Whatever a user
had a say in is escaped, and quoted where needed: nobody can write a line of his own into the log, or a field of one.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["keep"]

# What every record has; the rest are the facts of this event.
PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def keep(*, level: str = "INFO", as_json: bool = False) -> None:
    """Write what chatlab logs from `level` on to standard error, and what its libraries warn of."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("chatlab").setLevel(level.upper())


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """The fields this event was given."""
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


class JsonLines(logging.Formatter):
    """One JSON object on each line; `time` is in UTC, ISO 8601."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **facts(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII: no sign that some reader takes for a line end


class Lines(logging.Formatter):
    """`13:05:59 INFO chatlab.chat connected connection=4f2a-1 user="Ana Maria"`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, but for a traceback."""
        fields = "".join(f" {name}={quoted(str(value))}" for name, value in facts(record).items())
        event = record.getMessage()
        event = quoted(event) if "=" in event else printable(event)  # one that could pass for a field does not
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.name} {event}{fields}"
        if record.exc_info:
            line += "".join(f"\n    {printable(each)}" for each in self.formatException(record.exc_info).splitlines())
        return line


def quoted(value: str) -> str:
    """A field's value: as it is, or as a JSON string if it has a sign that means something here."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return "".join(
        sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in json.dumps(value, ensure_ascii=False)
    )


def printable(text: str) -> str:
    """The text with line ends, escape sequences and the like written out; 한글 and emoji stay as they are."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
