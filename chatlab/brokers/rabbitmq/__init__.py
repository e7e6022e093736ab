"""RabbitMQ as a broker."""

from chatlab.brokers.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
