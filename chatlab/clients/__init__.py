"""Clients: the STOMP client that the lessons, the tests and other programs use."""
