"""STOMP 1.0, 1.1 and 1.2: frames, then a session over them, both without I/O; then an asyncio client."""
