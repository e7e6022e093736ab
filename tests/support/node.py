"""Node.js and npm packages for tests, installed once in the user's cache, outside the checkout."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import require

# Every package that any test needs, because npm removes packages that are not on its command line.
PACKAGES = (
    "@stomp/stompjs@7.3.0",
    "axe-core@4.14.0",
    "sockjs-client@1.6.1",
    "stompjs@2.3.3",
    "webstomp-client@1.2.6",
    "ws@8.18.3",
)
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatlab" / "node"
SECONDS = 30


def packages(wanted: Sequence[str] = PACKAGES, folder: Path = FOLDER) -> Path:
    """Return the `node_modules` folder with these packages; skip the test if Node is missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        require.missing("node", "install Node.js 18 or later, with npm")
    modules = folder / "node_modules"
    if not all(_is_installed(modules, package) for package in wanted):
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(folder), "--no-save", "--no-audit", "--no-fund", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            require.missing("node", f"{' '.join(command)} (it failed: {done.stderr[-300:]})")
    return modules


def _is_installed(modules: Path, package: str) -> bool:
    name, _, version = package.rpartition("@")
    try:
        return bool(json.loads((modules / name / "package.json").read_text())["version"] == version)
    except OSError:
        return False


class Script:
    """A running script that prints one JSON value per line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        """Return the next value; raise AssertionError with its standard error if it ends instead."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(SECONDS):
            line = await self._process.stdout.readline()
            if not line:
                raise AssertionError((await self._process.stderr.read()).decode())
        return json.loads(line)

    async def ended(self) -> int:
        """Wait for its end, and return its status."""
        async with asyncio.timeout(SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def running(modules: Path, script: Path, *arguments: str) -> AsyncIterator[Script]:
    """Run a script, and kill it on exit if it is still running."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
