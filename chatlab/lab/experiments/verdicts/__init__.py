"""Verdicts of the lessons, computed from what their cells have seen."""
