"""The report of a test or a cell that ran out of time, tested with separate runs of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]
PLUGINS = ["-p", "tests.support.timeouts", "-p", "tests.support.whole_notebooks"]


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in `folder` as `make test` does; return its exit status and output."""
    command = [sys.executable, "-m", "pytest", *PLUGINS, "--rootdir", str(folder), "-rfEs", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments, "."], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def write_test(folder: Path, text: str) -> None:
    (folder / "test_it.py").write_text(textwrap.dedent(text))


def write_notebook(folder: Path, *cells: str) -> None:
    code = [nbformat.v4.new_code_cell(textwrap.dedent(cell), id=f"cell{n}") for n, cell in enumerate(cells)]
    nbformat.write(nbformat.v4.new_notebook(cells=code), folder / "lesson.ipynb")


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param([], id="in this process"),
        pytest.param(["-n1", "--dist=loadfile"], id="in a worker"),
    ],
)
def test_a_hanging_test_shows_the_awaits_of_every_task(tmp_path: Path, workers: list[str]) -> None:
    write_test(
        tmp_path,
        """
        import asyncio, threading

        async def read_without_a_sender():
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            await reader.readexactly(4)

        async def serve(reader, writer):
            await asyncio.Event().wait()

        async def test_it():
            global PORT
            threading.Thread(target=threading.Event().wait, name="another thread", daemon=True).start()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            PORT = server.sockets[0].getsockname()[1]
            await asyncio.create_task(read_without_a_sender(), name="the reader")

        def test_the_next_one():
            pass
        """,
    )
    status, output = run(tmp_path, "--timeout=1", *workers)
    assert status == 1
    assert "1 failed, 1 passed" in output
    assert "out of time: 1 s" in output
    task = output.partition("--- task the reader: read_without_a_sender")[2]
    assert "await reader.readexactly(4)" in task
    assert "in StreamReader.readexactly" in task
    assert "--- thread another thread" in output
    if sys.platform == "linux":
        assert "--- socket listening, port" in output


def test_an_alarm_swallowed_by_a_background_task_is_repeated(tmp_path: Path) -> None:
    write_test(
        tmp_path,
        """
        import asyncio, time

        async def busy():
            try:
                while True:
                    time.sleep(0.1)
            except BaseException:
                await asyncio.Event().wait()

        async def test_it():
            await asyncio.create_task(busy(), name="busy")
        """,
    )
    status, output = run(tmp_path, "--timeout=1")
    assert status == 1
    assert "1 failed" in output


def test_a_hanging_teardown_times_out_too(tmp_path: Path) -> None:
    write_test(
        tmp_path,
        """
        import asyncio, pytest

        @pytest.fixture
        async def stuck():
            yield
            await asyncio.Event().wait()

        async def test_it(stuck):
            assert False, "the test fails before its teardown"
        """,
    )
    status, output = run(tmp_path, "--timeout=1")
    assert status == 1
    assert "1 failed, 1 error" in output
    assert "in stuck" in output


def test_a_hanging_cell_shows_the_stacks_of_its_kernel_and_the_rest_is_skipped(tmp_path: Path) -> None:
    write_notebook(
        tmp_path,
        "1 + 1",
        """
        import asyncio

        async def wait_forever(event):
            await event.wait()

        other = asyncio.create_task(wait_forever(asyncio.Event()), name="background")
        await wait_forever(asyncio.Event())
        """,
        "2 + 2",
        "3 + 3",
    )
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    assert "1 failed, 1 passed, 2 skipped" in output
    assert "Timeout of 2 seconds exceeded" in output
    assert "stacks of the kernel" in output
    assert "--- task background: wait_forever" in output
    assert output.count("await event.wait()") >= 3  # the text of the cell, and a line in each of two tasks
    assert "not run: Cell 1 ran out of time" in output


def test_a_cell_that_blocks_the_kernels_loop_shows_the_stacks_too(tmp_path: Path) -> None:
    write_notebook(tmp_path, "import time\nwhile True:\n    time.sleep(100)")
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    description = output.partition("stacks of the kernel")[2]
    assert "--- thread MainThread" in description
    assert "time.sleep(100)" in description


def test_a_kernel_with_a_held_interpreter_lock_writes_its_stacks_on_a_signal(tmp_path: Path) -> None:
    holds_the_lock = "import ctypes\nwhile True: ctypes.PyDLL(None).sleep(30)"  # PyDLL keeps the interpreter's lock
    write_notebook(tmp_path, holds_the_lock)
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    assert "does not answer" in output
    assert "Current thread" in output  # the first line of faulthandler's output


def test_the_whole_notebook_of_a_failed_cell_is_run_again(tmp_path: Path) -> None:
    write_notebook(tmp_path, "x = 1", "import os\nassert x and os.path.exists('solved')")
    arguments = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=20"]
    assert "1 failed, 1 passed" in run(tmp_path, *arguments)[1]
    (tmp_path / "solved").touch()
    status, output = run(tmp_path, *arguments, "--lf")
    assert (status, "2 passed" in output) == (0, True)


def test_each_notebook_has_a_separate_home(tmp_path: Path) -> None:
    write_notebook(
        tmp_path, "from chatlab.lab.home import home\nassert not list(home().iterdir())\n(home() / 'x').touch()"
    )
    (tmp_path / "second.ipynb").write_bytes((tmp_path / "lesson.ipynb").read_bytes())
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=20")
    assert (status, "2 passed" in output) == (0, True)
