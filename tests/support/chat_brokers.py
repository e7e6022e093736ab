"""The brokers for chat tests in which the engine might matter: memory, and Redis Streams on each server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from tests.support import redis_servers

REDIS_STREAMS = "redis streams on "
KINDS = ["memory", *(REDIS_STREAMS + name for name in redis_servers.NAMES)]

ChatBroker = MemoryBroker | RedisStreamsBroker


@asynccontextmanager
async def chat_broker(kind: str) -> AsyncIterator[ChatBroker]:
    """Provide a broker of that kind, on a separate Redis because all chats use the same keys."""
    if kind == "memory":
        async with MemoryBroker() as memory:
            yield memory
        return
    async with (
        await redis_servers.start(kind.removeprefix(REDIS_STREAMS)) as engine,
        RedisStreamsBroker(engine.url) as streams,
    ):
        yield streams
