"""A logger for what strangers cause: the first lines of a kind in full, then how many more there were.

    refusals = Seldom(logging.getLogger("chatlab.chat"))
    refusals.info("upgrade refused", extra={"peer": "192.0.2.7", "status": 400})      # ten lines in ten seconds, then
    12:00:10 INFO chatlab.chat upgrade refused: and 1,990 more in the last 10 s       # one for all the rest

A client that may send anything may cause any number of refusals. Each is worth a line while they are few, and a line
for each would let one client fill the disk. A kind is a level and a message as the code has it, before its arguments
are put in: what a client sends makes no new kind.

Left out: what happens once, or for a person who has logged in. That goes to the logger itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LINES", "SECONDS", "ThrottledLog"]

LINES = 10  # of each kind, in
SECONDS = 10.0
MAX_KINDS = 200  # messages are written in the code, so that there are never so many

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(slots=True)
class _Window:
    """The lines of one kind since the first of them."""

    began: float
    lines: int = 0
    more: int = 0
    timer: asyncio.TimerHandle | None = None


class ThrottledLog:
    """`log`, at most `lines` times in `seconds` for each kind of message."""

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
        """Log what is a client's doing, and harmless."""
        self.log(logging.INFO, message, *args, extra=extra)

    def warning(self, message: str, *args: object, extra: Mapping[str, Any] | None = None) -> None:
        """Log what somebody may want to look into."""
        self.log(logging.WARNING, message, *args, extra=extra)

    def error(
        self,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log a fault of this program; with `exc_info`, the traceback of each line that is logged."""
        self.log(logging.ERROR, message, *args, extra=extra, exc_info=exc_info)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log one line, or count it."""
        if not self._log.isEnabledFor(level):
            return
        window = self._window(level, message)
        if window.lines < self._lines:
            window.lines += 1
            self._log.log(level, message, *args, extra=extra, exc_info=exc_info)
        else:
            window.more += 1
            self._say_later(window, level, message)

    def _window(self, level: int, message: str) -> _Window:
        now, kind = self._clock(), (level, message)
        window = self._windows.get(kind)
        if window is not None and now - window.began >= self._seconds:
            self._end(level, message)
            window = None
        if window is None:
            if len(self._windows) >= MAX_KINDS:
                self.flush()
            window = self._windows[kind] = _Window(now)
        return window

    def _say_later(self, window: _Window, level: int, message: str) -> None:
        """Have the count logged when the time is over; without an event loop, the next line brings it."""
        if window.timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            rest = max(0.0, self._seconds - (self._clock() - window.began))
            window.timer = loop.call_later(rest, self._end, level, message)

    def _end(self, level: int, message: str) -> None:
        window = self._windows.pop((level, message), None)
        if window is None:
            return
        if window.timer is not None:
            window.timer.cancel()
        if window.more:
            self._log.log(level, "%s: and %s more in the last %g s", message, f"{window.more:,}", self._seconds)

    def flush(self) -> None:
        """Log all counts now: the server is about to stop."""
        for level, message in list(self._windows):
            self._end(level, message)
