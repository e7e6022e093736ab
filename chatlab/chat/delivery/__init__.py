"""Delivery: from the broker to every subscriber, what was missed, who is here."""
