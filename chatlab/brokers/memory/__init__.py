"""A broker inside one process, without an engine."""

from chatlab.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
