"""The doctor: check this machine, the day before a workshop, and what a chat keeps on a Redis."""

from chatlab.lab.doctor.checks import Check, as_json, as_table, bring_the_lab, examine

__all__ = ["Check", "as_json", "as_table", "bring_the_lab", "examine"]
