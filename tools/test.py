"""Runs the parts of `make test` or of `make test-long`, each to its end whatever fails, then says how they ended.

Its arguments are the parts: targets of the Makefile. What one prints is shown, and kept in .test/PART.log. PYTEST_ARGS, from the
environment or the command line of the `make` that runs this, is make's to hand on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

LOGS = Path(".test")
CLOSING = re.compile(r"=*\s*((?:no tests ran|(?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*?)\s*=*")  # pytest's last line
LEFT_OUT = re.compile(r"(\d+) long tests left out")  # by tests/support/long_tests.py
ORDER = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
FAILURE = """\
What failed, and why: the FAILURES in {logs}. Run only that again: make {target} PYTEST_ARGS=--lf
If it fails again, report it where you cloned this from, with that log and the output of `.venv/bin/chatlab doctor`."""
LONG = "{count} long tests, and the notebooks with every exercise solved, were left out. To run them: make test-long"
SKIPPED = "Skipped is what this machine lacks; each SKIPPED line names what brings it (more in CONTRIBUTING.md)."


def run(part: str) -> int:
    """Run one part; return its exit status."""
    print(f"\n== {part}", flush=True)
    command = ["make", "--no-print-directory", part]
    with (
        (LOGS / f"{part}.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            log.write(piece)
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    return process.returncode


def closing_line(part: str) -> str:
    """Pytest's last line in the part's log; empty if it did not come to that."""
    return last(CLOSING, part)


def last(pattern: re.Pattern[str], part: str) -> str:
    """The group of the last line in the part's log that matches; empty if none does."""
    lines = (LOGS / f"{part}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((found[1] for line in reversed(lines) if (found := pattern.fullmatch(line))), "")


def counts(line: str) -> Counter[str]:
    """What a closing line counts: {"failed": 1, "passed": 30}; "errors" is counted as "error"."""
    return Counter({kind.replace("errors", "error"): int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", line)})


def main(parts: Sequence[str]) -> int:
    """Run these parts; return 1 if any failed."""
    LOGS.mkdir(exist_ok=True)
    began, total, failed = time.monotonic(), Counter[str](), []
    statuses = {part: run(part) for part in parts}
    print()
    for part, status in statuses.items():
        line = closing_line(part)
        print(f"{part:15} {line or f'ended with status {status} before its tests had run'}")
        total += counts(line) if line else Counter(error=1)
        failed += [str(LOGS / f"{part}.log")] if status or not line else []
    if total["skipped"]:
        print(SKIPPED)
    if "test-code" in statuses and (left_out := last(LEFT_OUT, "test-code")):
        print(LONG.format(count=left_out))
    if failed:
        target = "test" if "test-code" in statuses else "test-long"
        print(FAILURE.format(logs=", ".join(failed), target=target))
    counted = ", ".join(f"{total[kind]} {kind}" for kind in ORDER if total[kind])
    print(f"{counted or 'no tests ran'} in {time.monotonic() - began:.2f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
