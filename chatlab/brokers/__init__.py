"""Message brokers behind one port: `port.py` says what they can do, each other file is one engine."""
