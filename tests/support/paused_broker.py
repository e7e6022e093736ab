"""A broker whose publishes wait until the test releases them."""

import asyncio

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.errors import BrokerUnavailable


class PausedBroker(MemoryBroker):
    """A broker that stores nothing until `storing` is set, and refuses bodies that contain `refuse`."""

    def __init__(self) -> None:
        super().__init__()
        self.storing = asyncio.Event()
        self.asked = 0
        self.waiting_octets = 0

    async def publish(self, topic: str, body: bytes) -> str:
        self.asked += 1
        self.waiting_octets += len(body)
        await self.storing.wait()
        self.waiting_octets -= len(body)
        if b"refuse" in body:
            raise BrokerUnavailable("no room left")
        return await super().publish(topic, body)

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        return asyncio.ensure_future(self.publish(topic, body))
