"""A pytest plugin: `--lf` runs the whole notebook of a failed cell again."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

CELL = ".ipynb::"


class WholeNotebooks:
    """Record the cells that were run, by notebook."""

    def __init__(self) -> None:
        self.cells: defaultdict[str, set[Any]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if CELL in report.nodeid:
            self.cells[report.nodeid.partition("::")[0]].add(report.id)

    @pytest.hookimpl(tryfirst=True)  # before the cache is written
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        failed = getattr(session.config.pluginmanager.get_plugin("lfplugin"), "lastfailed", {})
        for cells in self.cells.values():
            if not cells.isdisjoint(failed):
                failed.update(dict.fromkeys(cells, True))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(WholeNotebooks(), "whole notebooks")
