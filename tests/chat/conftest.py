"""A chat on the memory broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with MemoryBroker(run=1) as broker:
        yield broker


@pytest.fixture
async def server(broker: MemoryBroker) -> AsyncIterator[ChatServer]:
    async with await chat_server.start(broker) as server:
        yield server
