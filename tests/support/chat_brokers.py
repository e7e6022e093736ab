"""The brokers a chat's tests run on where the engine might matter: memory, and Redis Streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chatlab.brokers.memory import MemoryBroker
from chatlab.brokers.redis_streams import RedisStreamsBroker
from chatlab.errors import EngineMissing
from chatlab.lab import engines
from tests.support import require

KINDS = ["memory", "redis streams"]

ChatBroker = MemoryBroker | RedisStreamsBroker


@asynccontextmanager
async def chat_broker(kind: str) -> AsyncIterator[ChatBroker]:
    """A broker of that kind; its Redis is its own, for all chats use the same keys."""
    if kind == "memory":
        async with MemoryBroker() as memory:
            yield memory
        return
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("REDIS_URL", raising=False)
        try:
            engine = await engines.start("redis")
        except EngineMissing as absent:
            require.missing("redis", absent.remedy)
    async with engine, RedisStreamsBroker(engine.url) as streams:
        yield streams
