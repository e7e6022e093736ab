"""Experiments with crashes: who has a message when a process is killed, and what a power cut leaves of a Redis."""

from chatlab.lab.experiments.crashes.one_message import Fate, Stepper, Steps, step
from chatlab.lab.experiments.crashes.power_cut import Survival, what_is_left
from chatlab.lab.experiments.crashes.stepper_panel import stepper_panel

__all__ = ["Fate", "Stepper", "Steps", "Survival", "step", "stepper_panel", "what_is_left"]
