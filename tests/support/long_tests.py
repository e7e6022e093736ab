"""A pytest plugin: report at the end of a run how many tests marked `long` it left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the long tests."""
    if items:
        stash = items[0].config.stash
        stash[LEFT_OUT] = stash.get(LEFT_OUT, 0) + sum(item.get_closest_marker("long") is not None for item in items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the count to xdist's controller if this process is one of its workers."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Copy the count of a worker; every worker collects the same tests."""
    if output := getattr(node, "workeroutput", None):
        node.config.stash[LEFT_OUT] = output["left_out"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the count; tools/test.py reads this line."""
    if (count := config.stash.get(LEFT_OUT, 0)) and config.option.markexpr == "not long":
        terminalreporter.write_line(f"{count} long tests left out")
