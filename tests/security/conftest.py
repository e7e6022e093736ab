"""A broker that needs no engine; where the engine matters, a test asks for each in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chatlab.brokers.memory.broker import MemoryBroker


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with MemoryBroker() as broker:
        yield broker
