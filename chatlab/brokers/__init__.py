"""Message brokers behind one port: `port.py` defines the calls; each folder is one engine."""
