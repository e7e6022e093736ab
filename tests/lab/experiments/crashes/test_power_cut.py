"""What a crash leaves of a Redis, on each Redis and Valkey here."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.crashes.power_cut import SETTINGS, SyncWatch, append_only_file, what_is_left
from tests.support import redis_servers


@pytest.mark.parametrize("server", redis_servers.EACH)
async def test_kill_leaves_what_was_appended_and_a_power_cut_what_was_synced(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(options: Mapping[str, str]) -> Any:
        return redis_servers.start(server, options)

    found = await what_is_left(40, start=start)
    assert {found.left("no", "kill"), found.left("no", "power")} == {0}
    assert {found.left("always", "kill"), found.left("always", "power")} == {40}
    assert found.left("everysec", "kill") == 40
    assert 20 <= found.left("everysec", "power") < 40
    assert repr(found).splitlines()[1] == "appendonly no         0 of 40   0 of 40"
    assert "<th scope='row'>appendfsync always</th><td>40 of 40</td><td>40 of 40</td>" in found._repr_html_()
    figures: list[Any] = []
    monkeypatch.setattr("IPython.display.display", figures.append)
    found.chart()
    assert [text.get_text() for text in figures[0].figure.axes[0].texts][::2] == ["0", "40", "40"]


@contextlib.contextmanager
def syncs_of(pid: int | None, log: Path) -> Iterator[Callable[[], list[float]]]:
    """Run strace on a process; yield a function that returns the times (`time.time()`) of its calls for a sync."""
    command = ["strace", "-f", "-ttt", "-e", "trace=fsync,fdatasync", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            if "attached" not in (said := strace.stderr.readline()):
                pytest.skip(f"strace cannot look at a process here: {said.strip()}")
            yield lambda: [float(line.split()[1]) for line in log.read_text().splitlines() if "sync(" in line]
        finally:
            strace.terminate()


@pytest.mark.skipif(shutil.which("strace") is None, reason="only strace shows when a server syncs")
async def test_what_the_watch_calls_synced_has_been_synced(fresh_redis_everysec: Engine, tmp_path: Path) -> None:
    engine = fresh_redis_everysec
    async with Redis.from_url(engine.url) as redis:
        with syncs_of(engine.pid, tmp_path / "strace") as syncs:
            watch = SyncWatch(engine, redis)
            for number in range(3):
                await redis.xadd("a", {"body": str(number)})
                length, added = append_only_file(engine).stat().st_size, time.time()
                assert await watch.next_sync() >= length
                synced = time.time()
                assert any(added < at < synced for at in syncs())


@pytest_asyncio.fixture(params=redis_servers.EACH)
async def fresh_redis_everysec(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with await redis_servers.start(request.param, SETTINGS["everysec"]) as engine:
        yield engine


async def test_the_file_is_the_one_that_grows(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        before = append_only_file(fresh_redis).stat().st_size
        await redis.xadd("a", {"body": "x"})
        assert append_only_file(fresh_redis).stat().st_size > before
