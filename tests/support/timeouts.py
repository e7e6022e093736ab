"""A pytest plugin: report where a test or a notebook's cell was when it ran out of time.

pytest-timeout's own report shows a test's event loop waiting in `select`, and under xdist not even the other threads.
This plugin adds the stack of every thread and asyncio task to the failure: of the test process and, for a cell, of its
kernel. After a cell runs out of time, the rest of its notebook is skipped.
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

ALARM_INTERVAL = 5.0  # seconds until the next alarm, because a background task may catch the exception of the first
MAX_DESCRIBED = 3  # alarms described per test
EXTRA_SECONDS = 90.0  # additional seconds for a cell: to start the kernel, or to interrupt and describe a late cell
ALARMS = pytest.StashKey[int]()
SETTINGS = pytest.StashKey[Any]()
DEADLINE = pytest.StashKey[float]()
FOLDER = pytest.StashKey[str]()
CELL = pytest.StashKey["IPyNbCell"]()
KERNEL_DESCRIBED = pytest.StashKey[bool]()


# Tests.


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Replace pytest-timeout's alarm by one that goes off only during a phase of a test, never in pytest's own code."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None
    item.stash[SETTINGS] = settings
    item.stash[DEADLINE] = time.monotonic() + settings.timeout
    return True


@contextmanager
def alarm(item: pytest.Item, seconds: float | None = None) -> Iterator[None]:
    """Fail the test if the block runs longer than `seconds`, or past the test's own deadline."""
    if (settings := item.stash.get(SETTINGS, None)) is None:
        yield
        return

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if settings.disable_debugger_detection or not pytest_timeout.is_debugging():
            describe(item)
            pytest.fail(f"out of time: {settings.timeout:g} s; 'Captured stacks' below shows where it was")

    before = signal.signal(signal.SIGALRM, on_alarm)
    remaining = item.stash[DEADLINE] - time.monotonic() if seconds is None else seconds
    signal.setitimer(signal.ITIMER_REAL, max(remaining, 0.001), ALARM_INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Limit setup and call together to the test's time."""
    with alarm(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Limit setup and call together to the test's time."""
    with alarm(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Limit the teardown to the same time again, however much the test used."""
    settings = item.stash.get(SETTINGS, None)
    with alarm(item, settings and settings.timeout):
        return (yield)


def is_cell(item: pytest.Item) -> TypeGuard[IPyNbCell]:
    """Return whether the item is a cell that nbval runs; do not import nbval for that, which takes seconds."""
    nbval = sys.modules.get("nbval.plugin")
    return nbval is not None and isinstance(item, nbval.IPyNbCell)


def describe(item: pytest.Item) -> None:
    """Add the stacks to the test's report."""
    item.stash[ALARMS] = item.stash.get(ALARMS, 0) + 1
    if item.stash[ALARMS] <= MAX_DESCRIBED:
        item.add_report_section("call", "stacks", stacks.report())
    if is_cell(item):
        item.parent.timed_out = True
        describe_kernel(item)


# Cells.


class Cells:
    """The hooks for cells, in a separate plugin because the hooks above have the same names."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Leave a cell's time-out to nbval, which interrupts the kernel; our alarm would let the kernel run on."""
        if is_cell(item):
            item.add_marker(pytest.mark.timeout(item.config.getoption("nbval_cell_timeout") + EXTRA_SECONDS))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Watch a notebook's kernel once it runs; skip the cells after one that ran out of time."""
        if not is_cell(item):
            return (yield)
        notebook: IPyNbFile = item.parent
        if notebook.timed_out:
            pytest.skip(f"not run: {notebook.stash[CELL].name} ran out of time")
        notebook.stash[CELL] = item
        if notebook.kernel is None:
            yield from with_home(notebook)
            watch(notebook)
            return None
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Fail a cell that ran out of time but ended without an error when interrupted: nbval would let it pass."""
        result = yield
        if KERNEL_DESCRIBED in item.stash:
            pytest.fail(
                "out of time, and ended without an error when interrupted; 'Captured stacks of the kernel' is below"
            )
        return result


def pytest_configure(config: pytest.Config) -> None:
    """Register the hooks for cells."""
    config.pluginmanager.register(Cells(), "cells that run out of time")


def with_home(notebook: IPyNbFile) -> Generator[None]:
    """Start the kernel with a separate CHATLAB_HOME, so that no output depends on exercises solved elsewhere."""
    folder = tempfile.TemporaryDirectory(prefix="chatlab-notebook-", ignore_cleanup_errors=True)
    notebook.config.add_cleanup(folder.cleanup)
    notebook.stash[FOLDER] = folder.name
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHATLAB_HOME", str(Path(folder.name, "home")))
        yield


def watch(notebook: IPyNbFile) -> None:
    """Prepare the kernel to report its stacks, and request them whenever nbval's wait times out."""
    kernel, get_message = notebook.kernel, notebook.kernel.get_message
    code = f"__import__('runpy').run_path({stacks.__file__!r})['answer_in']({notebook.stash[FOLDER]!r})"
    request = kernel.kc.execute(code, silent=True, store_history=False)
    kernel.await_reply(request, timeout=stacks.PATIENCE * 6)
    kernel.await_idle(request, timeout=stacks.PATIENCE)

    def get_or_describe(stream: str, timeout: float | None = None) -> Any:
        try:
            return get_message(stream, timeout=timeout)
        except Empty:
            describe_kernel(notebook.stash[CELL])
            raise

    kernel.get_message = get_or_describe


def describe_kernel(cell: IPyNbCell) -> None:
    """Add the stacks of the kernel to the cell's report, once."""
    if KERNEL_DESCRIBED in cell.stash:
        return
    cell.stash[KERNEL_DESCRIBED] = True
    pid = cell.parent.kernel.km.provisioner.pid
    cell.add_report_section("call", "stacks of the kernel", stacks.ask(cell.parent.stash[FOLDER], pid))
