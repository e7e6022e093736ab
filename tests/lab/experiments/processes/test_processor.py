"""The processor time of another process: it grows while the process works, and by less than a tick of the system."""

import os
import subprocess
import sys
import time

import pytest

from chatlab.lab.experiments.processes.processor import processor_seconds


def test_the_processor_time_of_this_process_is_what_the_process_itself_counts() -> None:
    before = time.process_time()
    found = processor_seconds(os.getpid())
    assert before <= found <= time.process_time()


def test_a_process_that_waits_uses_no_processor_time_and_one_that_works_does() -> None:
    program = "input(); sum(range(3_000_000)); print('done', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        idle = _when_it_stands_still(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        worked = processor_seconds(process.pid)
        process.kill()

    assert worked - idle > 0.001


def _when_it_stands_still(pid: int) -> float:
    """Return the processor time of a process once a tenth of a second adds nothing to it: it waits for input."""
    used = -1.0
    while processor_seconds(pid) != used or not used:
        used = processor_seconds(pid)
        time.sleep(0.1)
    return used


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts in ticks elsewhere")
def test_a_millisecond_of_work_is_seen() -> None:
    before = processor_seconds(os.getpid())
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    assert 0.001 <= processor_seconds(os.getpid()) - before < 0.01


def test_a_process_that_does_not_exist_is_named() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError, match=str(process.pid)):
        processor_seconds(process.pid)
