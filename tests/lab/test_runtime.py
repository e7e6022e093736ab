"""Things are started, replaced and stopped by name, on one loop or several, and nothing outlives the process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from chatlab.lab.runtime import Lab
from tests.support.processes import wait_until_gone


class Server:
    """A TCP server that says one word and closes: as real as a server of a lesson, and smaller."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.closed = False

    async def start(self) -> Server:
        self._server = await asyncio.start_server(self._greet, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def _greet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.word.encode())
        writer.close()

    async def aclose(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        self.closed = True


async def ask(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    yield lab
    await lab.stop_all()


async def test_what_is_started_runs_until_it_is_stopped(lab: Lab) -> None:
    server = await lab.start("greeter", Server("안녕").start())
    assert await ask(server.port) == "안녕"
    await lab.stop("greeter")
    with pytest.raises(OSError):
        await ask(server.port)


async def test_starting_again_under_a_name_replaces_what_ran_there(lab: Lab) -> None:
    first = await lab.start("greeter", Server("one").start())
    second = await lab.start("greeter", Server("two").start())
    assert first.closed
    assert await ask(second.port) == "two"
    assert lab.names == ("greeter",)


async def test_stopping_what_does_not_run_is_fine(lab: Lab) -> None:
    await lab.stop("nobody")
    await lab.stop_all()


async def test_stop_all_stops_the_last_started_first(lab: Lab) -> None:
    stopped = []

    class Noted(Server):
        async def aclose(self) -> None:
            await super().aclose()
            stopped.append(self.word)

    for word in ("server", "relay", "client"):
        await lab.start(word, Noted(word).start())
    await lab.stop_all()
    assert stopped == ["client", "relay", "server"]
    assert repr(lab) == "running: nothing"


async def test_one_that_fails_to_stop_does_not_keep_the_others_running(lab: Lab) -> None:
    class Stuck(Server):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("cannot say goodbye")

    good = await lab.start("good", Server("good").start())
    await lab.start("stuck", Stuck("stuck").start())
    with pytest.raises(ExceptionGroup, match="did not stop cleanly"):
        await lab.stop_all()
    assert good.closed
    assert lab.names == ()


async def test_a_start_that_fails_leaves_the_name_free(lab: Lab) -> None:
    async def fail() -> Server:
        raise OSError("port 80 is taken")

    await lab.start("greeter", Server("one").start())
    with pytest.raises(OSError, match="taken"):
        await lab.start("greeter", fail())
    assert lab.names == ()


async def test_two_starts_of_one_name_at_once_leave_one_running(lab: Lab) -> None:
    one, two = await asyncio.gather(
        lab.start("greeter", Server("one").start()), lab.start("greeter", Server("two").start())
    )
    assert [one.closed, two.closed].count(False) == 1
    assert lab.names == ("greeter",)


async def test_anything_that_can_be_closed_can_be_kept(lab: Lab) -> None:
    async def connect(port: int) -> asyncio.StreamWriter:
        return (await asyncio.open_connection("127.0.0.1", port))[1]

    server = await lab.start("greeter", Server("hello").start())
    writer = await lab.start("connection", connect(server.port))  # has close(), and it is not a coroutine
    await lab.stop("connection")
    assert writer.is_closing()


async def test_a_background_task_is_cancelled_and_awaited_when_its_name_is_stopped(lab: Lab) -> None:
    started, ended = asyncio.Event(), []

    async def tick() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    await lab.task("ticker", tick())
    await started.wait()
    await lab.stop("ticker")
    assert ended == ["cleaned up"]


async def test_the_death_of_a_background_task_is_told_at_once(lab: Lab) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.set_result(context["message"]))

    async def die() -> None:
        raise ValueError("boom")

    await lab.task("listener", die())
    assert await asyncio.wait_for(told, 5) == "background task 'listener' died"
    await lab.stop("listener")


def test_a_name_started_on_one_loop_can_be_started_again_on_the_next() -> None:
    lab = Lab()

    async def cell(word: str) -> str:
        server = await lab.start("greeter", Server(word).start())
        return await ask(server.port)

    assert asyncio.run(cell("one")) == "one"
    assert asyncio.run(cell("two")) == "two"
    asyncio.run(lab.stop_all())
    assert lab.names == ()


async def test_what_runs_on_the_loop_of_another_thread_is_ended_there(lab: Lab) -> None:
    ended_on = []

    class Noted(Server):
        async def aclose(self) -> None:
            ended_on.append(asyncio.get_running_loop())
            await super().aclose()

    async def elsewhere(kernel: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        await lab.start("greeter", Noted("hello").start())
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(lab.stop("greeter"), kernel))
        return asyncio.get_running_loop()

    other = await asyncio.to_thread(asyncio.run, elsewhere(asyncio.get_running_loop()))
    assert ended_on == [other]


@pytest.mark.usefixtures("each_redis")
async def test_the_kernels_redis_is_started_once_and_comes_back_after_it_was_killed(lab: Lab) -> None:
    urls = await asyncio.gather(lab.redis(), lab.redis())
    assert urls[0] == urls[1]
    engine = await lab.engine("redis")
    pid = engine.pid
    engine.kill()
    assert await lab.redis() == urls[0]
    assert engine.pid != pid


# What a notebook's kernel does, without Jupyter: servers and an engine by top-level await on one loop, then an end.
KERNEL = """
    import asyncio, sys
    from chatlab.lab.runtime import lab

    class Client:
        async def aclose(self):
            print("goodbye", flush=True)

    async def client():
        return Client()

    async def cells():
        await lab.start("client", client())
        await lab.redis()
        print((await lab.engine("redis")).pid, flush=True)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(cells())
    sys.stdin.readline()          # until the test has seen enough; then the interpreter exits, the loop left open
"""


@pytest.fixture
def kernel(each_redis: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(KERNEL)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_at_the_kernels_exit_everything_is_ended_politely(kernel: subprocess.Popen[str]) -> None:
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    output, _ = kernel.communicate("\n", timeout=15)
    assert output == "goodbye\n"
    assert kernel.returncode == 0
    wait_until_gone(pid)


def test_nothing_is_left_when_the_kernel_is_killed(kernel: subprocess.Popen[str]) -> None:
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    kernel.send_signal(signal.SIGKILL)
    kernel.communicate(timeout=15)
    wait_until_gone(pid)


CELLS = """
    from chatlab import echo
    from chatlab.lab.runtime import lab
    first = await lab.start("echo", echo.start())
    ---
    second = await lab.start("echo", echo.start())
    ---
    url = await lab.redis()
    print((await lab.engine("redis")).pid)
    ---
    lab
"""


@pytest.mark.usefixtures("each_redis")
def test_it_works_in_a_notebook_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS.split("---")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=30, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert notebook.cells[3].outputs[0]["data"]["text/plain"] == "running: echo, redis engine"
    wait_until_gone(int(notebook.cells[2].outputs[0]["text"]))
