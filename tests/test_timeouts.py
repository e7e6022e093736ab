"""A test or a cell that runs out of time says where it stood; tried on pytest runs of their own."""

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
    """Run pytest on `folder` as `make test` does; its exit status and output."""
    command = [sys.executable, "-m", "pytest", *PLUGINS, "--rootdir", str(folder), "-rfEs", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments, "."], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def one_test(folder: Path, text: str) -> None:
    (folder / "test_it.py").write_text(textwrap.dedent(text))


def notebook(folder: Path, *cells: str) -> None:
    code = [nbformat.v4.new_code_cell(textwrap.dedent(cell), id=f"cell{n}") for n, cell in enumerate(cells)]
    nbformat.write(nbformat.v4.new_notebook(cells=code), folder / "lesson.ipynb")


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param([], id="in this process"),
        pytest.param(["-n1", "--dist=loadfile"], id="in a worker"),
    ],
)
def test_a_test_that_hangs_shows_the_awaits_of_every_task(tmp_path: Path, workers: list[str]) -> None:
    one_test(
        tmp_path,
        """
        import asyncio, threading

        async def reads_what_nobody_sends():
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            await reader.readexactly(4)

        async def serve(reader, writer):
            await asyncio.Event().wait()

        async def test_it():
            global PORT
            threading.Thread(target=threading.Event().wait, name="a thread beside it", daemon=True).start()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            PORT = server.sockets[0].getsockname()[1]
            await asyncio.create_task(reads_what_nobody_sends(), name="the reader")

        def test_the_next_one():
            pass
        """,
    )
    status, output = run(tmp_path, "--timeout=1", *workers)
    assert status == 1
    assert "1 failed, 1 passed" in output
    assert "out of time: 1 s" in output
    task = output.partition("--- task the reader: reads_what_nobody_sends")[2]
    assert "await reader.readexactly(4)" in task
    assert "in StreamReader.readexactly" in task
    assert "--- thread a thread beside it" in output
    if sys.platform == "linux":
        assert "--- socket listening, port" in output


def test_an_alarm_that_a_background_task_swallows_is_followed_by_another(tmp_path: Path) -> None:
    one_test(
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


def test_a_teardown_that_hangs_ends_too(tmp_path: Path) -> None:
    one_test(
        tmp_path,
        """
        import asyncio, pytest

        @pytest.fixture
        async def stuck():
            yield
            await asyncio.Event().wait()

        async def test_it(stuck):
            assert False, "and it fails before that"
        """,
    )
    status, output = run(tmp_path, "--timeout=1")
    assert status == 1
    assert "1 failed, 1 error" in output
    assert "in stuck" in output


def test_a_cell_that_hangs_shows_where_its_kernel_stands_and_the_rest_is_not_run(tmp_path: Path) -> None:
    notebook(
        tmp_path,
        "1 + 1",
        """
        import asyncio

        async def hears_nothing(event):
            await event.wait()

        other = asyncio.create_task(hears_nothing(asyncio.Event()), name="beside the cell")
        await hears_nothing(asyncio.Event())
        """,
        "2 + 2",
        "3 + 3",
    )
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    assert "1 failed, 1 passed, 2 skipped" in output
    assert "Timeout of 2 seconds exceeded" in output
    assert "stacks of the kernel" in output
    assert "--- task beside the cell: hears_nothing" in output
    assert output.count("await event.wait()") >= 3  # the cell's text, and a line in each of two tasks
    assert "not run: Cell 1 ran out of time" in output


def test_a_cell_that_blocks_the_kernels_loop_is_described_too(tmp_path: Path) -> None:
    notebook(tmp_path, "import time\nwhile True:\n    time.sleep(100)")
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    described = output.partition("stacks of the kernel")[2]
    assert "--- thread MainThread" in described
    assert "time.sleep(100)" in described


def test_a_kernel_whose_interpreter_is_held_is_described_by_signal(tmp_path: Path) -> None:
    notebook(tmp_path, "import ctypes\nwhile True: ctypes.PyDLL(None).sleep(30)")  # PyDLL keeps the interpreter's lock
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2")
    assert status == 1
    assert "does not answer" in output
    assert "Current thread" in output  # the head of what faulthandler writes


def test_a_notebook_with_a_failed_cell_is_run_again_as_a_whole(tmp_path: Path) -> None:
    notebook(tmp_path, "here = 1", "import os\nassert here and os.path.exists('solved')")
    arguments = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=20"]
    assert "1 failed, 1 passed" in run(tmp_path, *arguments)[1]
    (tmp_path / "solved").touch()
    status, output = run(tmp_path, *arguments, "--lf")
    assert (status, "2 passed" in output) == (0, True)


def test_a_notebook_has_a_home_of_its_own(tmp_path: Path) -> None:
    notebook(tmp_path, "from chatlab.lab.home import home\nassert not list(home().iterdir())\n(home() / 'x').touch()")
    (tmp_path / "second.ipynb").write_bytes((tmp_path / "lesson.ipynb").read_bytes())
    status, output = run(tmp_path, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=20")
    assert (status, "2 passed" in output) == (0, True)
