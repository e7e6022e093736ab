"""Whether a process still runs: for tests of what must not be left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def wait_until_gone(pid: int) -> None:
    """Return when no such process runs; pytest's own timeout ends a vain wait."""
    while is_running(pid):
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether it runs. A zombie has ended: who reaps it is the business of whatever adopted it."""
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
