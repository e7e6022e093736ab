"""Check whether a process is still running, for tests that no process is left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def wait_until_ended(pid: int) -> None:
    """Wait until the process has ended; pytest's timeout ends the wait if it does not."""
    while is_running(pid):
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether the process is running. A zombie has ended, although its parent has not reaped it yet."""
    if sys.platform == "linux":
        stat = Path(f"/proc/{pid}/stat")
        try:
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
