"""The chat: STOMP rooms over any broker, on any number of instances; `start()` is the way in."""

from chatlab.chat.endpoint.server import start

__all__ = ["start"]
