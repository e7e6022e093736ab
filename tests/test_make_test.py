"""`make test` runs all its parts even if one fails, and ends with their results and what to do next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_parts(folder: Path, **parts: str) -> tuple[int, str]:
    """Run tools/test.py with these commands as its parts (the others pass); return its status and output."""
    passing = {"code": 5, "notebooks": 2, "editions": 3}
    commands = {part: f"echo {count} passed in 1.00s" for part, count in passing.items()} | parts
    makefile = "".join(f"test-{part}:\n\t@{command}\n" for part, command in commands.items())
    (folder / "Makefile").write_text(makefile)
    script = [sys.executable, str(ROOT / "tools" / "test.py"), *(f"test-{part}" for part in passing)]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_after_success_the_last_line_counts_the_tests(tmp_path: Path) -> None:
    status, output = run_parts(tmp_path, editions="echo '= 3 passed, 1 skipped in 2.00s ='")
    assert status == 0
    assert output.splitlines()[-1].startswith("10 passed, 1 skipped in ")
    assert "names what brings it" in output
    assert "--lf" not in output


def test_a_failing_part_does_not_stop_the_others(tmp_path: Path) -> None:
    status, output = run_parts(
        tmp_path, code="echo 1 failed, 4 passed in 1.00s; exit 1", editions="echo 1 passed in 1s"
    )
    assert status == 1
    lines = output.splitlines()
    assert lines[-1].startswith("1 failed, 7 passed in ")
    assert "test-code       1 failed, 4 passed in 1.00s" in lines
    assert "test-notebooks  2 passed in 1.00s" in lines


def test_after_a_failure_the_output_names_the_log_the_rerun_and_where_to_report(tmp_path: Path) -> None:
    _, output = run_parts(tmp_path, notebooks="echo why it failed; echo 2 errors in 1.00s; exit 1")
    last = "\n".join(output.splitlines()[-4:])
    assert ".test/test-notebooks.log" in last
    assert ".test/test-code.log" not in last
    assert "make test PYTEST_ARGS=--lf" in last
    assert "report it" in last
    assert "why it failed" in (tmp_path / ".test" / "test-notebooks.log").read_text()


def test_a_part_that_ends_before_its_tests_run_is_an_error(tmp_path: Path) -> None:
    status, output = run_parts(tmp_path, code="echo no such module; exit 3")
    assert status == 1
    assert "test-code       ended with status" in output
    assert output.splitlines()[-1].startswith("1 error, 5 passed")


def test_left_out_long_tests_are_counted_with_the_command_that_runs_them(tmp_path: Path) -> None:
    _, output = run_parts(tmp_path, code="echo 7 long tests left out; echo 5 passed in 1.00s")
    left_out = "7 long tests, and the notebooks with every exercise solved, were left out. To run them: make test-long"
    assert left_out in output.splitlines()
    _, output = run_parts(tmp_path)
    assert "make test-long" not in output


@pytest.mark.long
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_pytest_counts_the_long_tests_it_leaves_out(tmp_path: Path, workers: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = long\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_short(): pass\n@pytest.mark.long\ndef test_long(): pass\ndef test_other(): pass\n"
    )
    plugins = ["-p", "tests.support.long_tests", "-p", "no:nbval"]  # nbval takes seconds to import
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not long",
        "-k",
        "not other",
        workers,
        *plugins,
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert "1 long tests left out" in done.stdout.splitlines()
    assert "1 passed" in done.stdout
