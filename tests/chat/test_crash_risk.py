"""An operator learns what a crash of the broker may cost: in the log, from /readyz, from /metrics."""

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
    """A broker that does not know what a crash costs."""

    crash_risk = None  # type: ignore[assignment]  # as if it had none


async def page(server: ChatServer, path: str) -> tuple[int, str]:
    async with ClientSession() as http, http.get(f"{server.page_url}{path}") as response:
        return response.status, await response.text()


async def test_a_redis_that_keeps_nothing_is_warned_of_everywhere(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_redis_that_keeps_all_is_said_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        await engines.start("redis", options={"appendfsync": "always"}, own=True) as engine,
        RedisStreamsBroker(engine.url) as broker,
        await chat_server.start(broker) as server,
    ):
        (said,) = [record for record in caplog.records if "survives its crash" in record.getMessage()]
        assert said.levelno == logging.INFO
        assert await page(server, "readyz") == (200, "ready\n")
        assert f"{GAUGE} 1\n" in (await page(server, "metrics"))[1]
        # It is asked again once the connection was lost.
        async with Redis.from_url(engine.url) as redis:
            await redis.config_set("appendonly", "no")
            await redis.client_kill_filter(_type="normal", skipme=True)
        while (await page(server, "readyz"))[0] != 200:
            pass
        assert "loses every message" in (await page(server, "readyz"))[1]
        assert f"{GAUGE} 0\n" in (await page(server, "metrics"))[1]


async def test_what_is_not_known_is_no_number() -> None:
    async with await chat_server.start(Silent()) as server:
        assert f"{GAUGE} NaN\n" in (await page(server, "metrics"))[1]


async def test_memory_ends_with_its_process(server: ChatServer) -> None:
    assert "loses every message" in server.service.crash_risk
    assert f"{GAUGE} 0\n" in (await page(server, "metrics"))[1]
    assert await page(server, "readyz") == (200, "ready\n")  # it is this process that answers
