"""A recorded run of lesson 05: the figures of a machine that has every engine, for one that lacks some.

    recorded().figures["delay median ms"]["Kafka"].median

`python -m chatlab.lab.experiments.recorded` measures and writes `recorded.json`. It needs every engine, and the tools
that `chatlab.lab.engines.load_tools` fetches. The power cut comes from `benchmarks/power_cut.py`, which needs root.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from chatlab.lab.experiments.lesson05 import Order
from chatlab.lab.experiments.lesson05_abilities import BY_KEY, PROTOCOLS_BY_KEY
from chatlab.lab.experiments.lesson05_persistence import Row
from chatlab.lab.experiments.repeats import Repeats

__all__ = ["FILE", "MEASURES", "Recording", "recorded"]

FILE = Path(__file__).with_name("recorded.json")

# The measures in `Recording.figures`. They are keys: the lesson shows its own words.
MEASURES = (
    "delay median ms",  # not shown: a key
    "delay p99 ms",  # not shown: a key
    "rate client",  # not shown: a key
    "rate engine",  # not shown: a key
    "engine µs",  # not shown: a key
    "eight readers µs",  # not shown: a key
    "MiB",
    "start s",  # not shown: a key
    "late reader",  # not shown: a key
)


@dataclass(frozen=True)
class Recording:
    """What was measured, on which machine and when; every mapping's last key is the name of a candidate.

    `figures`: by measure (`MEASURES`). "rate client" and "rate engine" are messages per second; "engine µs" and "eight
    readers µs" are the engine's processor time for a message; "late reader" is how many of 100 messages a reader that
    subscribes afterwards receives, with the engine's own means. `persistence`: the rows of
    `lesson05_persistence.table`. `ways`: by the constants of `lesson05_abilities`. `protocols`: names as there.
    """

    machine: str
    date: str
    versions: Mapping[str, str]
    figures: Mapping[str, Mapping[str, Repeats]]
    persistence: Sequence[Row]
    ways: Mapping[str, Mapping[str, bool]]
    protocols: Mapping[str, Sequence[str]]
    orders: Mapping[str, Order]

    @property
    def source(self) -> str:
        """The machine and the date in one text, as a verdict's card shows them."""
        return f"{self.machine}, {self.date}"


@cache
def recorded() -> Recording:
    """Return the recorded run that is part of the package."""
    return from_json(json.loads(FILE.read_text(encoding="utf-8")))


def from_json(content: Mapping[str, Any]) -> Recording:
    """Return the recording in the content of the file; abilities and protocols get the names they have here."""
    return Recording(
        content["machine"],
        content["date"],
        content["versions"],
        {
            measure: {name: Repeats(tuple(values)) for name, values in by_name.items()}
            for measure, by_name in content["figures"].items()
        },
        [Row(**row) for row in content["persistence"]],
        {name: {BY_KEY[key]: can for key, can in ways.items()} for name, ways in content["ways"].items()},
        {name: [PROTOCOLS_BY_KEY[key] for key in keys] for name, keys in content["protocols"].items()},
        {name: Order(**order) for name, order in content["orders"].items()},
    )
