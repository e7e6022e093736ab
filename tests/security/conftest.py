"""The in-memory broker for tests in which the engine does not matter; the others ask for each engine in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chatlab.brokers.memory.broker import MemoryBroker


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with MemoryBroker() as broker:
        yield broker
