"""Code that finds and starts a Redis is tested with each Redis on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatlab.lab.runtime import lab
from tests.support import redis_servers


@pytest.fixture(params=redis_servers.NAMES)
async def each_redis(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[str | None]:
    """Yield the name of each Redis or Valkey in turn; it is the one found during the test, by kernels too.

    With None as its parameter, leave everything as it is.
    """
    if request.param is not None:
        redis_servers.make_the_only_one(request.param, tmp_path / "server-on-path", monkeypatch)
        await lab.stop("redis engine")
    yield request.param
    await lab.stop("redis engine")
