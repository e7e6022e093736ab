"""The guard ends its server when a stop is requested or its parent dies, and not before."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from chatlab.lab.engines import guard

GRACEFUL = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WITH_HELPER = """
import subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print('up', helper.pid, flush=True)
time.sleep(60)
"""


def run(script: str, *options: str) -> tuple[subprocess.Popen[bytes], Sequence[str]]:
    """Start a guard over a small server; return when the server is up, with the words it printed."""
    command = [sys.executable, guard.__file__, *options, "--", sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert int(process.stdout.readline()) > 0
    words = process.stderr.readline().decode().split()  # the server's standard output goes to the log
    assert words[0] == "up"
    return process, words


def finish(process: subprocess.Popen[bytes], stdin: bytes = b"") -> int:
    process.communicate(stdin, timeout=20)
    return process.returncode


def test_a_requested_stop_terminates_the_server_gracefully() -> None:
    process, _ = run(GRACEFUL)
    assert finish(process, b".") == 7


def test_a_closed_pipe_ends_the_server_and_removes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    process, _ = run(STUBBORN, "--remove", str(folder))
    finish(process)  # at once, because the data is not needed
    assert not folder.exists()


def test_the_folder_is_kept_after_a_requested_stop(tmp_path: Path) -> None:
    process, _ = run(GRACEFUL, "--remove", str(tmp_path))
    finish(process, b".")
    assert tmp_path.exists()


def test_a_server_that_does_not_stop_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GRACE", 0.2)
    server = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, process_group=0)
    assert server.stdout is not None
    server.stdout.readline()
    assert guard.end(server, gracefully=True) == -signal.SIGKILL
    server.stdout.close()


def test_helpers_end_with_their_server() -> None:
    process, (_, helper) = run(WITH_HELPER)
    assert process.stderr is not None
    process.communicate(b".", timeout=20)  # returns at the end of standard error, which the helper also holds open
    assert int(helper) > 0


@pytest.mark.parametrize("status", [0, 3])
def test_the_guard_returns_the_status_of_a_server_that_ends_by_itself(status: int) -> None:
    process, _ = run(f"print('up', flush=True); raise SystemExit({status})")
    assert process.wait(20) == status
