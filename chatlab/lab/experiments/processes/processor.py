"""The processor time of another process, finer than a millisecond where the system has a clock for it.

`psutil` reads what Linux writes to /proc, in ticks of 10 ms: too coarse for the cost of one message. Each process also
has a clock of its own there, which counts nanoseconds. macOS and Windows report fine times to `psutil`.
"""

from __future__ import annotations

import sys
import time

import psutil

__all__ = ["processor_seconds"]

CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the clock of a whole process, with all its threads


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, in user mode and in the kernel.

    Raises `ProcessLookupError` if there is no such process.
    """
    if sys.platform == "linux":
        try:
            return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)  # as clock_getcpuclockid(3) makes it
        except OSError as error:
            raise ProcessLookupError(f"no process {pid}") from error  # not shown: for programmers
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"no process {pid}") from error  # not shown: for programmers
    return float(times.user + times.system)
