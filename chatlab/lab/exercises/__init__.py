"""Exercises: checked against the real thing, with hints and a solution each."""

from chatlab.lab.exercises.exercise import check, hint, progress, solution

__all__ = ["check", "hint", "progress", "solution"]
