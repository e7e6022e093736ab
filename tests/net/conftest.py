"""A chat on the broker that needs no engine: what an end of a WebSocket is for."""

from tests.chat.conftest import broker, server

__all__ = ["broker", "server"]
