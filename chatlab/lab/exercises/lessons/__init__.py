"""The exercises themselves, a module for each lesson: what is checked, the hints, a solution that is real code."""
