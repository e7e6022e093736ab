"""Log lines with the id of their connection; of one kind, 200 lines per ten seconds, then a count of the rest.

The program decides where lines go and in which format. Values are logged as fields, not as parts of a line, so user
input cannot forge a line. Never logged: the headers of CONNECT, which hold passcodes and tokens, and message bodies.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from chatlab.logs.throttled import ThrottledLog

LINES = 200  # of one kind in ten seconds: enough for a class, in which each member causes one; not for a flood
_throttled: dict[str, ThrottledLog] = {}  # by the logger's name; there are only a few loggers


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds the field `connection` to every line; `extra` adds more."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the connection's fields with the line's own (before Python 3.13, one replaces the other)."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:  # the signature of `logging.LoggerAdapter`
        """Log a line, or count it if there have been too many of its kind."""
        if self.isEnabledFor(level):
            message, given = self.process(msg, kwargs)
            throttled = _throttled.setdefault(self.logger.name, ThrottledLog(self.logger, lines=LINES))
            throttled.log(level, message, *args, extra=given["extra"], exc_info=given.get("exc_info"))
