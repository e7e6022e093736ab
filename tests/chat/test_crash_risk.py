"""An operator sees what a crash of the broker may lose: in the log, in /readyz, in /metrics."""

from __future__ import annotations

import logging

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines import engine as engines

GAUGE = "# TYPE chatlab_broker_survives_crash gauge\nchatlab_broker_survives_crash"


class Silent(MemoryBroker):
    """A broker that cannot say what a crash may lose."""

    crash_risk = None  # type: ignore[assignment]  # as if it had none


async def page(server: ChatServer, path: str) -> tuple[int, str]:
    async with ClientSession() as http, http.get(f"{server.page_url}{path}") as response:
        return response.status, await response.text()


async def test_a_redis_without_persistence_is_reported_in_the_log_readyz_and_metrics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        await engines.start("redis", options={"appendonly": "no"}, own=True) as engine,
        RedisStreamsBroker(engine.url) as broker,
        await chat_server.start(broker) as server,
    ):
        (said,) = [record for record in caplog.records if "a crash of the broker" in record.getMessage()]
        assert said.levelno == logging.WARNING
        status, text = await page(server, "readyz")
        assert (status, text.splitlines()) == (200, ["ready", said.getMessage()])
        assert f"{GAUGE} 0\n" in (await page(server, "metrics"))[1]


async def test_a_redis_that_survives_a_crash_is_reported_as_such(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        await engines.start("redis", options={"appendfsync": "always"}, own=True) as engine,
        RedisStreamsBroker(engine.url) as broker,
        await chat_server.start(broker) as server,
    ):
        (said,) = [record for record in caplog.records if "confirmed messages survive a crash" in record.getMessage()]
        assert said.levelno == logging.INFO
        assert await page(server, "readyz") == (200, "ready\n")
        assert f"{GAUGE} 1\n" in (await page(server, "metrics"))[1]
        # The broker is asked again after the connection was lost.
        async with Redis.from_url(engine.url) as redis:
            await redis.config_set("appendonly", "no")
            await redis.client_kill_filter(_type="normal", skipme=True)
        while (await page(server, "readyz"))[0] != 200:
            pass
        assert "loses every message" in (await page(server, "readyz"))[1]
        assert f"{GAUGE} 0\n" in (await page(server, "metrics"))[1]


async def test_an_unknown_crash_risk_is_not_a_number_in_the_metrics() -> None:
    async with await chat_server.start(Silent()) as server:
        assert f"{GAUGE} NaN\n" in (await page(server, "metrics"))[1]


async def test_the_memory_broker_does_not_survive_a_crash(server: ChatServer) -> None:
    assert "loses every message" in server.service.crash_risk
    assert f"{GAUGE} 0\n" in (await page(server, "metrics"))[1]
    assert await page(server, "readyz") == (200, "ready\n")  # this process is the broker
