"""Resources are started, replaced and stopped by name, on one loop or several; nothing outlives the process."""

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
from tests.support.processes import wait_until_ended


class Server:
    """A TCP server that sends one word and closes: a real server, smaller than a lesson's."""

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


async def test_a_server_runs_until_it_is_stopped(lab: Lab) -> None:
    server = await lab.start("greeter", Server("안녕").start())
    assert await ask(server.port) == "안녕"
    await lab.stop("greeter")
    with pytest.raises(OSError):
        await ask(server.port)


async def test_starting_under_a_used_name_replaces_the_first_server(lab: Lab) -> None:
    first = await lab.start("greeter", Server("one").start())
    second = await lab.start("greeter", Server("two").start())
    assert first.closed
    assert await ask(second.port) == "two"
    assert lab.names == ("greeter",)


async def test_stopping_an_unused_name_does_nothing(lab: Lab) -> None:
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


async def test_stop_all_stops_the_others_when_one_fails_to_stop(lab: Lab) -> None:
    class Stuck(Server):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("cannot close")

    good = await lab.start("good", Server("good").start())
    await lab.start("stuck", Stuck("stuck").start())
    with pytest.raises(ExceptionGroup, match="did not stop cleanly"):
        await lab.stop_all()
    assert good.closed
    assert lab.names == ()


async def test_a_failed_start_leaves_the_name_free(lab: Lab) -> None:
    async def fail() -> Server:
        raise OSError("port 80 is taken")

    await lab.start("greeter", Server("one").start())
    with pytest.raises(OSError, match="taken"):
        await lab.start("greeter", fail())
    assert lab.names == ()


async def test_two_simultaneous_starts_of_one_name_leave_one_running(lab: Lab) -> None:
    one, two = await asyncio.gather(
        lab.start("greeter", Server("one").start()), lab.start("greeter", Server("two").start())
    )
    assert [one.closed, two.closed].count(False) == 1
    assert lab.names == ("greeter",)


async def test_any_object_with_a_close_method_can_be_started(lab: Lab) -> None:
    async def connect(port: int) -> asyncio.StreamWriter:
        return (await asyncio.open_connection("127.0.0.1", port))[1]

    server = await lab.start("greeter", Server("hello").start())
    writer = await lab.start("connection", connect(server.port))  # its close() is not a coroutine
    await lab.stop("connection")
    assert writer.is_closing()


class Opened:
    """What is used with `async with`: it yields another object, and is left once."""

    def __init__(self) -> None:
        self.left = 0

    async def __aenter__(self) -> str:
        return "open"

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


async def test_a_context_manager_is_entered_and_left_when_it_is_stopped(lab: Lab) -> None:
    first, second = Opened(), Opened()
    assert await lab.start("door", first) == "open"
    await lab.start("door", second)
    assert (first.left, second.left) == (1, 0)
    await lab.stop("door")
    assert (first.left, second.left) == (1, 1)


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


async def test_the_failure_of_a_background_task_is_reported_at_once(lab: Lab) -> None:
    reported: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.set_result(context["message"]))

    async def fail() -> None:
        raise ValueError("boom")

    await lab.task("listener", fail())
    assert await asyncio.wait_for(reported, 5) == "background task 'listener' died"
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


async def test_a_server_on_the_loop_of_another_thread_is_closed_on_that_loop(lab: Lab) -> None:
    closed_on = []

    class Noted(Server):
        async def aclose(self) -> None:
            closed_on.append(asyncio.get_running_loop())
            await super().aclose()

    async def elsewhere(kernel: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        await lab.start("greeter", Noted("hello").start())
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(lab.stop("greeter"), kernel))
        return asyncio.get_running_loop()

    other = await asyncio.to_thread(asyncio.run, elsewhere(asyncio.get_running_loop()))
    assert closed_on == [other]


@pytest.mark.usefixtures("each_redis")
async def test_the_kernels_redis_is_started_once_and_restarted_after_a_kill(lab: Lab) -> None:
    urls = await asyncio.gather(lab.redis(), lab.redis())
    assert urls[0] == urls[1]
    engine = await lab.engine("redis")
    pid = engine.pid
    engine.kill()
    assert await lab.redis() == urls[0]
    assert engine.pid != pid


# A notebook's kernel without Jupyter: servers and an engine by top-level await on one loop, then the end.
KERNEL = """
    import asyncio, sys
    from chatlab.lab.runtime import lab

    class Client:
        async def aclose(self):
            print("closed", flush=True)

    async def client():
        return Client()

    async def cells():
        await lab.start("client", client())
        await lab.redis()
        print((await lab.engine("redis")).pid, flush=True)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(cells())
    sys.stdin.readline()          # until the test is done; then the interpreter exits with the loop still open
"""


@pytest.fixture
def kernel(each_redis: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(KERNEL)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_everything_is_closed_gracefully_when_the_kernel_exits(kernel: subprocess.Popen[str]) -> None:
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    output, _ = kernel.communicate("\n", timeout=15)
    assert output == "closed\n"
    assert kernel.returncode == 0
    wait_until_ended(pid)


def test_no_process_is_left_when_the_kernel_is_killed(kernel: subprocess.Popen[str]) -> None:
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    kernel.send_signal(signal.SIGKILL)
    kernel.communicate(timeout=15)
    wait_until_ended(pid)


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
def test_a_notebook_replaces_its_servers_and_leaves_no_process_behind(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS.split("---")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=30, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert notebook.cells[3].outputs[0]["data"]["text/plain"] == "running: echo, redis engine"
    wait_until_ended(int(notebook.cells[2].outputs[0]["text"]))
