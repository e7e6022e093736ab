"""A watchdog for the event loop: ends code that holds the loop's thread and would freeze the kernel for ever.

    with Watchdog(on_stop) as dog:
        ...
    dog.stopped, dog.line

No time limit of the event loop can fire while its thread does not come back to it, as in `while True: pass`. So a
second thread looks. After `PATIENCE` seconds without a sign of the loop it raises `LoopBlocked` in the loop's thread,
and again as long as that is caught. Left out: one call that waits in C, such as `time.sleep(1000)`, is ended only when
it returns.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

__all__ = ["LoopBlocked", "Watchdog"]

PATIENCE: float = 5.0  # seconds without a sign of the event loop
LOOK: Final = 0.1


class LoopBlocked(BaseException):  # no Exception: `except Exception` in the code that blocks must not swallow it
    """The code has not come back to the event loop in time."""


class Watchdog:
    """Watches the running event loop. `stopped` says whether it had to interfere, `line` where in the learner's cell.

    `on_stop` is called in the event loop once it runs again. `line` is 0 if no line of a cell is known.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.stopped = False
        self.line = 0
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._beats = 0
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, name="exercise-watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._beat()
        self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking, and take back what was raised too late to arrive in the block."""
        for __ in range(2):  # it may arrive just here
            with suppress(LoopBlocked):
                self._ended.set()
                self._looking.join()
                self._raise(None)

    def _beat(self) -> None:
        self._beats += 1
        if not self._ended.is_set():
            self._loop.call_later(LOOK, self._beat)

    def _look(self) -> None:
        # Looks are counted, not seconds: a computer that slept, or was busy, has looked as little as it has run.
        seen, looks = self._beats, 0
        while not self._ended.wait(LOOK):
            seen, looks = (self._beats, 0) if self._beats != seen else (seen, looks + 1)
            if looks * LOOK >= PATIENCE:
                looks = 0
                self._interfere()

    def _interfere(self) -> None:
        if not self.stopped:
            self.line = self._line_of_the_cell()
            self._loop.call_soon_threadsafe(self._on_stop)
        self.stopped = True
        self._raise(LoopBlocked)

    def _raise(self, error: type[LoopBlocked] | None) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread), ctypes.py_object(error) if error else None
        )

    def _line_of_the_cell(self) -> int:
        """Return the innermost line of the learner's cell that the loop's thread is in; 0 if there is none."""
        frame = sys._current_frames().get(self._thread)
        while frame is not None and not is_cell(frame.f_code.co_filename):
            frame = frame.f_back
        return frame.f_lineno if frame is not None else 0


def is_cell(filename: str) -> bool:
    """Whether code with this file name was typed in a notebook or at a prompt."""
    return "ipykernel" in filename or filename.startswith("<")
