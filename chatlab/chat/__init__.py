"""The chat: STOMP rooms over any broker, on any number of instances. `start()` begins here."""

from chatlab.chat.endpoint.server import start

__all__ = ["start"]
