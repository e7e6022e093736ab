"""Editions: the notebooks as shipped, for learners, and for the instructor."""
