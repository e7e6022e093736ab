"""Engines and processes that a lesson starts: Redis, RabbitMQ, Kafka, and chat servers to kill."""

from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine

__all__ = ["Cluster", "Engine"]
