"""Trials on engines with their own clients: what they can do, and what a crash leaves of what they keep."""
