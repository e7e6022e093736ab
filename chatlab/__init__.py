"""chatlab: real-time chat, from the WebSocket handshake to STOMP on Redis Streams.

docs/architecture.md lists what is in here, layer by layer. Each package is imported by its own name; importing
`chatlab` imports nothing else.
"""

__version__ = "1.0.0"
