"""What a crash leaves of a Redis, on each Redis and Valkey here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
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
    assert {found.left("no", "kill -9"), found.left("no", "power cut")} == {0}
    assert {found.left("always", "kill -9"), found.left("always", "power cut")} == {40}
    assert found.left("everysec", "kill -9") == 40
    assert 20 <= found.left("everysec", "power cut") < 40
    assert repr(found).splitlines()[1] == "appendonly no         0 of 40   0 of 40"
    assert "<th scope='row'>appendfsync always</th><td>40 of 40</td><td>40 of 40</td>" in found._repr_html_()
    figures: list[Any] = []
    monkeypatch.setattr("IPython.display.display", figures.append)
    found.chart()
    assert [text.get_text() for text in figures[0].axes[0].texts][:3] == ["0", "40", "40"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, the watch only waits long enough")
async def test_what_the_watch_calls_synced_is_synced_by_the_servers_own_account() -> None:
    async with (
        await redis_servers.start(redis_servers.WHEEL, SETTINGS["everysec"]) as engine,
        Redis.from_url(engine.url) as redis,
    ):
        watch = SyncWatch(engine, redis)
        for number in range(3):
            await redis.xadd("a", {"body": str(number)})
            length = append_only_file(engine).stat().st_size
            assert await watch.next_sync() == length
            # WAITAOF, its first number: whether the server itself has synced all that this connection has written.
            assert (await redis.waitaof(1, 0, 1))[0] == 1


async def test_the_file_is_the_one_that_grows(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        before = append_only_file(fresh_redis).stat().st_size
        await redis.xadd("a", {"body": "x"})
        assert append_only_file(fresh_redis).stat().st_size > before
