"""Clients: the STOMP client used by the lessons, the tests and other programs."""
