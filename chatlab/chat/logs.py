"""Logs with the id of the connection each line is about.

Who writes them, and in which form, is the program's affair; as fields rather than as parts of a line, what a user sent
cannot pass for another line. CONNECT's headers, which hold passcodes and tokens, are never logged, nor are bodies.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose every line has the field `connection`; `extra` adds to that."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the connection's own fields among the line's (before Python 3.13 the one displaces the other)."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}
