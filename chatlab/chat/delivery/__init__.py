"""Delivery: from the broker to every subscriber; missed records; who is here."""
