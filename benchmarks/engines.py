"""Measure every installed engine as lesson 05 does: throughput at the engine and from Python, and what a kill leaves.

    python -m benchmarks.engines                 about three minutes
    python -m benchmarks.engines --repeats 5     with more rounds
    python -m benchmarks.engines redis kafka     only these engines

**throughput**: the engine's own tool and chatlab's Python client publish in turn, under the same conditions, which are
in `chatlab/lab/experiments/lesson05_engines.py`. The ratio is taken within each round.

**kill -9**: 200 messages in each setting. `python -m benchmarks.power_cut` does the same with a power cut.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import load_tools
from chatlab.lab.experiments import lesson05
from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.lesson05_engines import Compared, compared
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.experiments.trials.faults import by_engine, kill


def span(repeats: Repeats, digits: str = ",.0f") -> str:
    """Return "20,100 (19,800 to 21,300)"."""
    return f"{repeats.median:{digits}} ({repeats.low:{digits}} to {repeats.high:{digits}})"


async def throughput(kind: str, repeats: int) -> dict[str, Compared | None]:
    """Return the figures of each broker on one kind of engine. Raises EngineMissing."""
    async with await engines.start(kind) as engine:
        found = {}
        for name, (its_kind, broker) in lesson05.BROKERS.items():
            if its_kind == kind:
                found[name] = await compared(Candidate(name, partial(broker, engine.url), engine), repeats)
        return found


async def measure(kinds: Sequence[str], repeats: int) -> None:
    """Print two tables."""
    print("| published per second | at the engine | from Python | ratio |\n|---|---:|---:|---:|")
    for kind in kinds:
        try:
            for name, found in (await throughput(kind, repeats)).items():
                figures = [span(found.engine), span(found.client), span(found.ratio, ".2f")] if found else ["–"] * 3
                print("|", " | ".join([name, *figures]), "|", flush=True)
        except EngineMissing as missing:
            print(f"| {kind} | {missing} | | |")
    print("\n| 200 messages | confirmed | left after `kill -9` |\n|---|---:|---:|")
    for settings in by_engine():
        left = await kill(settings) if settings[0].kind in kinds else None
        for setting, each in zip(settings, left or (), strict=False):
            print(f"| {setting.engine}: {setting.title} | {each.confirmed} | {each.left} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kinds", nargs="*", default=list(lesson05.KINDS), help="the engines")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    options = parser.parse_args()
    try:
        load_tools.java(load_tools.KAFKA)
    except EngineMissing as missing:
        print(f"{missing}", file=sys.stderr)
    asyncio.run(measure(options.kinds, options.repeats))


if __name__ == "__main__":
    main()
