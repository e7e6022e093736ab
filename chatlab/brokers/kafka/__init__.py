"""Kafka as a broker."""

from chatlab.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
