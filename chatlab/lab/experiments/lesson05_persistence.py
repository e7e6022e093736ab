"""What `kill -9` and a power cut leave of 200 confirmed messages, setting by setting.

`kill -9` is measured here, on engines that are started for it. A power cut is recorded: it needs root, and a disk that
can be cut off (`benchmarks/power_cut.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from chatlab.lab.experiments.lesson05 import Candidate

__all__ = ["MESSAGES", "Row", "table"]

MESSAGES = 200


class Row(NamedTuple):
    """One setting of one engine: how many messages it confirmed, and how many were left after each fault.

    `after_power_cut` is always from the recorded run; `recorded` says that all of the row is. None: not measured.
    """

    engine: str  # "Redis Streams", "RabbitMQ", "Kafka"
    setting: str  # as in the engine's manual, such as "appendfsync everysec"
    confirmed: int
    after_kill: int | None
    after_power_cut: int | None
    recorded: bool


async def table(candidates: Iterable[Candidate]) -> list[Row]:
    """Return the rows of all engines: measured where an engine can be started here, recorded elsewhere."""
    return []
