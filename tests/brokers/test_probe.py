"""Whether an engine would serve a new client is tried, not guessed, and not too often."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from chatlab.brokers.redis.connections.server import probe, streams
from chatlab.lab.engines import engine as engines


async def test_the_probe_changes_no_key(redis_engine: engines.Engine) -> None:
    async with Redis.from_url(redis_engine.url) as redis:
        before = await redis.dbsize()
        assert await probe(redis_engine.url, streams(["chat:probed"])).why_refused() == ""
        assert await redis.dbsize() == before


async def test_concurrent_probes_share_one_answer(redis_engine: engines.Engine) -> None:
    shared = probe(redis_engine.url, streams())
    async with Redis.from_url(redis_engine.url) as redis:
        before = (await redis.info("stats"))["total_connections_received"]
        assert set(await asyncio.gather(*(shared.why_refused() for _ in range(50)))) == {""}
        assert (await redis.info("stats"))["total_connections_received"] - before <= 3


async def test_a_missing_server_is_a_reason_to_refuse() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    assert "does not answer" in await probe(f"redis://127.0.0.1:{port}", streams()).why_refused()


async def test_a_silent_server_times_out() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            assert "does not answer" in await probe(f"redis://127.0.0.1:{port}", streams()).why_refused()
