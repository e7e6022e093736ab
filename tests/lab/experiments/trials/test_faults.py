"""What a kill leaves on real engines, and that a fault can leave anything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from redis import Redis

from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.trials.faults import SETTINGS, Left, Setting, by_engine, kill, survive


def of(engine: str, *keys: str) -> list[Setting]:
    return [each for each in SETTINGS if each.engine == engine and (not keys or each.key in keys)]


async def killed(settings: Sequence[Setting], messages: int) -> dict[str, Left]:
    found = await kill(settings, messages)
    assert found is not None
    return {setting.key: each for setting, each in zip(settings, found, strict=True)}


def test_every_setting_has_a_key_of_its_own() -> None:
    assert len({(each.engine, each.key) for each in SETTINGS}) == len(SETTINGS)


def test_settings_share_an_engine_if_its_options_are_equal() -> None:
    groups = [[each.key for each in group] for group in by_engine()]

    assert groups[:4] == [["no-file"], ["rdb"], ["everysec"], ["always"]]
    assert [len(group) for group in groups[4:]] == [5, 4]


@pytest.mark.usefixtures("each_redis")
@pytest.mark.parametrize(("key", "left"), [("no-file", 0), ("rdb", 0), ("everysec", 50), ("always", 50)])
async def test_a_kill_leaves_what_redis_has_appended_to_its_file(key: str, left: int) -> None:
    assert await killed(of("Redis Streams", key), 50) == {key: Left(50, left)}


@pytest.mark.long
@pytest.mark.usefixtures("rabbitmq_engine")  # skips, and names the command to get one
async def test_a_kill_of_rabbitmq_leaves_confirmed_messages_that_are_persistent() -> None:
    found = await killed(of("RabbitMQ"), 50)
    unconfirmed = found.pop("classic-no-confirms")

    assert found == {
        "classic-transient": Left(50, 0),
        "classic": Left(50, 50),
        "quorum": Left(50, 50),
        "stream": Left(50, 50),
    }
    assert unconfirmed.confirmed == 0
    assert 0 <= unconfirmed.left <= 50


@pytest.mark.long
@pytest.mark.usefixtures("kafka_engine")
async def test_a_kill_of_kafka_leaves_what_it_has_confirmed_synced_or_not() -> None:
    found = await killed(of("Kafka"), 50)
    unconfirmed = found.pop("acks=0")

    assert found == dict.fromkeys(["acks=1", "acks=all", "acks=all, flush.messages=1"], Left(50, 50))
    assert unconfirmed.confirmed == 0
    assert 0 <= unconfirmed.left <= 50


@pytest.mark.usefixtures("rabbitmq_engine")
async def test_without_an_engine_to_start_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert await kill(of("RabbitMQ")) is None


async def test_the_fault_comes_when_all_is_published_and_the_publishers_are_connected() -> None:
    settings = of("Redis Streams", "always")
    seen = []
    async with await engines.start("redis", options=settings[0].options, own=True) as engine:

        def fault() -> None:
            with Redis.from_url(engine.url) as redis:
                (name,) = redis.keys("kept.*")
                seen.append((redis.xlen(name), len(redis.client_list())))
                redis.xtrim(name, maxlen=7, approximate=False)

        assert await survive(engine, settings, fault, engine.restart, messages=20) == [Left(20, 7)]

    assert seen == [(20, 2)]


async def test_a_pace_spreads_the_messages_over_time(redis_on_path: Engine) -> None:
    import time

    async def nothing() -> None:
        pass

    began = time.monotonic()
    await survive(redis_on_path, of("Redis Streams", "always"), lambda: None, nothing, messages=10, pace=0.02)

    assert time.monotonic() - began >= 0.2
