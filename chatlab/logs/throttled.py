"""A rate-limited logger for events that clients cause: the first lines of each kind in full, then only their number.

    refusals = ThrottledLog(logging.getLogger("chatlab.chat"))
    refusals.info("upgrade refused", extra={"peer": "192.0.2.7", "status": 400})      # ten lines in ten seconds, then
    12:00:10 INFO chatlab.chat upgrade refused: and 1,990 more in the last 10 s       # one for all the rest

A client can cause any number of refusals. Each is worth a line while they are few, but a line for every one would let a
single client fill the disk. A kind is a level and a message template, before its arguments are inserted, so a client's
input cannot create new kinds.

Left out: events that occur once, or that only logged-in users cause. Those go to the logger directly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LINES", "SECONDS", "ThrottledLog"]

LINES = 10  # of each kind, per
SECONDS = 10.0
MAX_KINDS = 200  # never reached, because the message templates are in the code

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(slots=True)
class _Window:
    """The lines of one kind since the first one."""

    started: float
    lines: int = 0
    suppressed: int = 0
    timer: asyncio.TimerHandle | None = None


class ThrottledLog:
    """`log`, limited to `lines` lines per `seconds` for each kind of message."""

    def __init__(
        self,
        log: Log,
        *,
        lines: int = LINES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._lines = lines
        self._seconds = seconds
        self._clock = clock
        self._windows: dict[tuple[int, str], _Window] = {}

    def info(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log a harmless event that a client caused."""
        self.log(logging.INFO, message, *args, extra=extra)

    def warning(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log an event that someone may want to investigate."""
        self.log(logging.WARNING, message, *args, extra=extra)

    def error(
        self,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log an error in this program; with `exc_info`, with a traceback for each line that is logged."""
        self.log(logging.ERROR, message, *args, extra=extra, exc_info=exc_info)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log a line, or count it if there were too many of its kind."""
        if not self._log.isEnabledFor(level):
            return
        window = self._window(level, message)
        if window.lines < self._lines:
            window.lines += 1
            self._log.log(level, message, *args, extra=extra, exc_info=exc_info)
        else:
            window.suppressed += 1
            self._schedule_end(window, level, message)

    def _window(self, level: int, message: str) -> _Window:
        now, kind = self._clock(), (level, message)
        window = self._windows.get(kind)
        if window is not None and now - window.started >= self._seconds:
            self._end(level, message)
            window = None
        if window is None:
            if len(self._windows) >= MAX_KINDS:
                self.flush()
            window = self._windows[kind] = _Window(now)
        return window

    def _schedule_end(self, window: _Window, level: int, message: str) -> None:
        """Schedule logging of the count. Without an event loop, it is logged before the next line of its kind."""
        if window.timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            rest = max(0.0, self._seconds - (self._clock() - window.started))
            window.timer = loop.call_later(rest, self._end, level, message)

    def _end(self, level: int, message: str) -> None:
        window = self._windows.pop((level, message), None)
        if window is None:
            return
        if window.timer is not None:
            window.timer.cancel()
        if window.suppressed:
            self._log.log(level, "%s: and %s more in the last %g s", message, f"{window.suppressed:,}", self._seconds)

    def flush(self) -> None:
        """Log all counts now, because the server is about to stop."""
        for level, message in list(self._windows):
            self._end(level, message)
