"""chatlab: real-time chat, from the WebSocket handshake to STOMP on Redis Streams.

The rooms, from the ground up: `errors`, `websocket`, `fanout`, `brokers`, `stomp`, `net`, `echo`, `room`,
`chat`, and what a notebook holds, `lab`. Each is imported by its own name; nothing is re-exported here.
"""

__version__ = "0.1.0"
