"""Experiments with crashes: who has a message when a process is killed, and what a power cut leaves of a Redis."""
