"""A pytest plugin: a test or a notebook's cell that runs out of time says where it stood.

pytest-timeout's own report shows a test's event loop waiting in `select`, and under xdist not even the other threads.
Here the failure holds the stack of every thread and of every asyncio task: of the test process and, for a cell, of its
kernel. When a cell has run out of time, the rest of its notebook is skipped.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest
import pytest_timeout

from tests.support import stacks

if TYPE_CHECKING:
    from nbval.plugin import IPyNbCell, IPyNbFile

AGAIN = 5.0  # seconds: a background task may catch the first alarm's exception; then the next follows
DESCRIBED = 3  # alarms of one test
STARTING = 90.0  # seconds more for a cell: the first waits for its kernel, a late one is interrupted and described
ALARMS = pytest.StashKey[int]()
SETTINGS = pytest.StashKey[Any]()
DEADLINE = pytest.StashKey[float]()
FOLDER = pytest.StashKey[str]()
CELL = pytest.StashKey["IPyNbCell"]()
KERNEL_TOLD = pytest.StashKey[bool]()


# Tests.


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Take the place of pytest-timeout's alarm; ours rings in a phase of the test only, never in pytest's own work."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None
    item.stash[SETTINGS] = settings
    item.stash[DEADLINE] = time.monotonic() + settings.timeout
    return True


@contextmanager
def alarm(item: pytest.Item, seconds: float | None = None) -> Iterator[None]:
    """Fail what runs in here in `seconds`, or when the test's own time is over."""
    if (settings := item.stash.get(SETTINGS, None)) is None:
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if settings.disable_debugger_detection or not pytest_timeout.is_debugging():
            describe(item)
            pytest.fail(f"out of time: {settings.timeout:g} s; 'Captured stacks' below shows where it stood")

    before = signal.signal(signal.SIGALRM, ring)
    left = item.stash[DEADLINE] - time.monotonic() if seconds is None else seconds
    signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Give setup and call together the test's time."""
    with alarm(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Give setup and call together the test's time."""
    with alarm(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Give the teardown as much again, whatever the test has used."""
    settings = item.stash.get(SETTINGS, None)
    with alarm(item, settings and settings.timeout):
        return (yield)


def is_cell(item: pytest.Item) -> TypeGuard[IPyNbCell]:
    """Return whether nbval runs it. Without nbval (`-p no:nbval`) nothing is: importing it takes seconds."""
    nbval = sys.modules.get("nbval.plugin")
    return nbval is not None and isinstance(item, nbval.IPyNbCell)


def describe(item: pytest.Item) -> None:
    """Add to the test's report where everything stands."""
    item.stash[ALARMS] = item.stash.get(ALARMS, 0) + 1
    if item.stash[ALARMS] <= DESCRIBED:
        item.add_report_section("call", "stacks", stacks.report())
    if is_cell(item):
        item.parent.timed_out = True
        describe_kernel(item)


# Cells.


class Cells:
    """The hooks of cells, registered as a plugin of their own since the ones above are of the same names."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Leave a cell's time to nbval, which interrupts the kernel: with our alarm, the kernel would go on."""
        if is_cell(item):
            item.add_marker(pytest.mark.timeout(item.config.getoption("nbval_cell_timeout") + STARTING))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Watch a notebook's kernel as soon as it runs; skip the cells behind one that ran out of time."""
        if not is_cell(item):
            return (yield)
        notebook: IPyNbFile = item.parent
        if notebook.timed_out:
            pytest.skip(f"not run: {notebook.stash[CELL].name} ran out of time")
        notebook.stash[CELL] = item
        if notebook.kernel is None:
            yield from with_a_home(notebook)
            watch(notebook)
            return None
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Fail a cell that ran out of time and then ended well after all: nbval would let it pass."""
        result = yield
        if KERNEL_TOLD in item.stash:
            pytest.fail("out of time, and ended well when interrupted; 'Captured stacks of the kernel' is below")
        return result


def pytest_configure(config: pytest.Config) -> None:
    """Register the hooks of cells."""
    config.pluginmanager.register(Cells(), "cells that run out of time")


def with_a_home(notebook: IPyNbFile) -> Generator[None]:
    """Start the kernel with a CHATLAB_HOME of its own, so that no output depends on what was solved elsewhere."""
    folder = tempfile.TemporaryDirectory(prefix="chatlab-notebook-", ignore_cleanup_errors=True)
    notebook.config.add_cleanup(folder.cleanup)
    notebook.stash[FOLDER] = folder.name
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHATLAB_HOME", str(Path(folder.name, "home")))
        yield


def watch(notebook: IPyNbFile) -> None:
    """Have the kernel answer with its stacks, and ask it for them whenever nbval has waited in vain."""
    kernel, get_message = notebook.kernel, notebook.kernel.get_message
    code = f"__import__('runpy').run_path({stacks.__file__!r})['answer_in']({notebook.stash[FOLDER]!r})"
    request = kernel.kc.execute(code, silent=True, store_history=False)
    kernel.await_reply(request, timeout=stacks.PATIENCE * 6)
    kernel.await_idle(request, timeout=stacks.PATIENCE)

    def described(stream: str, timeout: float | None = None) -> Any:
        try:
            return get_message(stream, timeout=timeout)
        except Empty:
            describe_kernel(notebook.stash[CELL])
            raise

    kernel.get_message = described


def describe_kernel(cell: IPyNbCell) -> None:
    """Add to the cell's report, once, where its kernel stands."""
    if KERNEL_TOLD in cell.stash:
        return
    cell.stash[KERNEL_TOLD] = True
    pid = cell.parent.kernel.km.provisioner.pid
    cell.add_report_section("call", "stacks of the kernel", stacks.ask(cell.parent.stash[FOLDER], pid))
