"""The session: one client, its requests and its subscriptions."""
