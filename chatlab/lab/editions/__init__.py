"""Editions: the notebooks as they were shipped, to hand out, and for the instructor."""
