"""RabbitMQ as a broker: queues that end with their readers, or streams that keep history."""

from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.rabbitmq.streams import RabbitMQStreamsBroker

__all__ = ["RabbitMQBroker", "RabbitMQStreamsBroker"]
