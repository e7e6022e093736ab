"""Logs a machine can read: one JSON object a line, with the id of the connection it is about.

    {"time": "2026-11-22T05:00:00.123Z", "level": "INFO", "message": "connected", "connection": "3f2a-17", …}

What a user sent reaches a log as a value in JSON, never as part of a line: a line feed in it is `\\n`, and nothing of
it can pass for another line. CONNECT's headers, which hold passcodes and tokens, are never logged, nor are bodies.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, TextIO

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose every line names the connection; `extra` adds to that."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the connection's own fields among the line's (before Python 3.13 the one displaces the other)."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}


class JsonFormatter(logging.Formatter):
    """One line, one object; in ASCII, so that no terminal makes anything of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's own fields first, then those given as `extra`."""
        milliseconds = f"{record.msecs:03.0f}"
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds}Z",
            "level": record.levelname,
            "message": record.getMessage(),
        }
        line.update({name: value for name, value in vars(record).items() if name not in _OWN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send chatlab's logs to `stream` (stderr), as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("chatlab")
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False
