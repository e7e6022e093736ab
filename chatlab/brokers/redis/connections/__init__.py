"""Connections to Redis: the URL, one connection, what the server is, and whether it would serve a new client."""
