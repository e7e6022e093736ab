"""Redis (or Valkey) as a broker: Streams, which keep records, and Pub/Sub, which does not."""

from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker

__all__ = ["RedisPubSubBroker", "RedisStreamsBroker"]
