"""The session: one client, what it asks for and what it subscribes to."""
