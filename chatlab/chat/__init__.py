"""The chat: STOMP rooms over any broker, on any number of instances; `chatlab.chat.server.start()` is the way in."""
