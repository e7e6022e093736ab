"""Logs with the id of the connection each line is about: some lines of a kind in ten seconds, then how many more.

Who writes them, and in which form, is the program's affair; as fields rather than as parts of a line, what a user sent
cannot pass for another line. CONNECT's headers, which hold passcodes and tokens, are never logged, nor are bodies.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from chatlab.logs.throttled import ThrottledLog

LINES = 200  # of a kind in ten seconds: a class comes and goes with a line for each, a flood does not
_seldom: dict[str, ThrottledLog] = {}  # by logger, of which there are a few


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose every line has the field `connection`; `extra` adds to that."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the connection's own fields among the line's (before Python 3.13 the one displaces the other)."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log one line, or count it."""
        if self.isEnabledFor(level):
            message, given = self.process(msg, kwargs)
            seldom = _seldom.setdefault(self.logger.name, ThrottledLog(self.logger, lines=LINES))
            seldom.log(level, message, *args, extra=given["extra"], exc_info=given.get("exc_info"))
