"""A chat on the in-memory broker, for tests of WebSocket ends."""

from tests.chat.conftest import broker, server

__all__ = ["broker", "server"]
