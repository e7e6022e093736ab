"""Logging to standard error: one line for each event, as text for people or as JSON for programs.

An event's details are the record's extra fields: `logger.info("connected", extra={"user": name})`. User input is
escaped, and quoted where needed, so that it cannot forge log lines or fields.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["log_to_stderr"]

# The attributes of every record; any others are the fields of the event.
STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def log_to_stderr(*, level: str = "INFO", as_json: bool = False) -> None:
    """Log chatlab's messages from `level` up, and its libraries' warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("chatlab").setLevel(level.upper())


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extra fields of an event."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object per line; `time` is in UTC, ISO 8601."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII only, so that no reader sees a line break in it


class TextFormatter(logging.Formatter):
    """`13:05:59 INFO chatlab.chat connected connection=4f2a-1 user="Ana Maria"`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by its traceback if there is one."""
        fields = "".join(f" {name}={quoted(str(value))}" for name, value in fields_of(record).items())
        event = record.getMessage()
        event = quoted(event) if "=" in event else printable(event)  # an event must not pass for a field
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.name} {event}{fields}"
        if record.exc_info:
            line += "".join(f"\n    {printable(each)}" for each in self.formatException(record.exc_info).splitlines())
        return line


def quoted(value: str) -> str:
    """Return a field's value, as a JSON string if it has a character with a meaning in the line."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return "".join(
        char if char.isprintable() else json.dumps(char)[1:-1] for char in json.dumps(value, ensure_ascii=False)
    )


def printable(text: str) -> str:
    """Return the text with control characters escaped; 한글 and emoji stay as they are."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
