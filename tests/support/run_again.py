"""Every cell may be run again: twice in a row, and a section alone after a restart, then in another order.

A learner runs a cell twice, goes back, or returns the next day with a new kernel. The rule that a lesson keeps: after a
restart, run its first cell and then any one section from its `setup` cell on; then run the cells of that section again
in any order. A whole lesson is run, and all cells that break are reported, not only the first.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager

ROOT = Path(__file__).parents[2]
CELL_SECONDS = 60
TITLE = re.compile("^## (.+)$", re.MULTILINE)


@dataclass
class Section:
    """The code cells under one heading, the first of which sets up what the others need."""

    title: str
    cells: list[str] = field(default_factory=list)


def sections(path: Path) -> list[Section]:
    """Return the sections of a lesson that have code cells; what comes before the first heading belongs to it."""
    found = [Section("")]
    for cell in nbformat.read(path, as_version=4).cells:
        titles = TITLE.findall(cell.source) if cell.cell_type == "markdown" else []
        if titles and not found[-1].cells:
            found[-1].title = titles[-1]
        elif titles:
            found.append(Section(titles[-1]))
        elif cell.cell_type == "code":
            found[-1].cells.append(cell.source)
    return [section for section in found if section.cells]


class Kernel:
    """A kernel that runs cells, and notes those that failed: `broken` has a line for each."""

    def __init__(self, manager: AsyncKernelManager, client: Any) -> None:
        self.broken: list[str] = []
        self._manager, self._client = manager, client

    async def restart(self) -> None:
        """Start over, with no name defined and nothing running."""
        await self._manager.restart_kernel(now=False)
        await self._client.wait_for_ready(timeout=60)

    async def run(self, source: str, when: str) -> None:
        """Run one cell; note how it failed, if it did."""
        error = await self._error_of(source)
        if error:
            self.broken.append(f"{when}: {error}\n{_indented(source)}")

    async def _error_of(self, source: str) -> str:
        asked = self._client.execute(source, stop_on_error=False)
        try:
            async with asyncio.timeout(CELL_SECONDS):
                return await self._first_error(asked)
        except TimeoutError:
            await self._manager.interrupt_kernel()
            return f"no end within {CELL_SECONDS} s"

    async def _first_error(self, asked: str) -> str:
        """Return the first error until the kernel is idle again; "" if there is none."""
        error = ""
        while True:
            try:
                message = await self._client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "error":
                error = error or f"{content['ename']}: {content['evalue']}"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return error


def _indented(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())


@asynccontextmanager
async def kernel(home: Path) -> AsyncIterator[Kernel]:
    """Start a kernel in the notebooks' folder, with a home of its own; end it, and what its cells started."""
    manager = AsyncKernelManager(kernel_name="python3")
    environment = {**os.environ, "CHATLAB_HOME": str(home), "PYTHONPATH": str(ROOT)}
    await manager.start_kernel(cwd=str(ROOT / "notebooks"), env=environment)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=False)


async def run_alone(running: Kernel, first: str, section: Section) -> None:
    """After a restart, run the lesson's first cell, each cell of the section twice, and then all in reverse order."""
    await running.restart()
    if section.cells[0] != first:
        await running.run(first, f"{section.title}, the lesson's first cell")
    for cell in section.cells:
        await running.run(cell, f"{section.title}, alone after a restart")
        await running.run(cell, f"{section.title}, again at once")
    for cell in reversed(section.cells):
        await running.run(cell, f"{section.title}, in reverse order")


async def run_again(lesson: str, home: Path) -> None:
    """Run all sections of a lesson ("01") in this way; raise AssertionError with all cells that failed."""
    (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    found = sections(path)
    async with kernel(home) as running:
        for section in found:
            await run_alone(running, found[0].cells[0], section)
    assert not running.broken, f"{len(running.broken)} times a cell failed:\n\n" + "\n\n".join(running.broken)
