"""A recorded run of lesson 05: the figures of a machine that has every engine, for one that lacks some.

    recorded().figures["delay median ms"]["Kafka"].median

`python -m chatlab.lab.experiments.recorded` measures and writes `recorded.json`. It needs every engine, and the tools
that `chatlab.lab.engines.load_tools` fetches. The power cut comes from `benchmarks/power_cut.py`, which needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from chatlab.brokers.port import Broker
from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import load_tools
from chatlab.lab.experiments import lesson05, lesson05_abilities, lesson05_engines
from chatlab.lab.experiments.lesson05 import Candidate, Order
from chatlab.lab.experiments.lesson05_abilities import BY_KEY, PROTOCOLS_BY_KEY
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.experiments.trials.faults import SETTINGS, Left, Row, by_engine, kill
from chatlab.lab.runtime import Lab
from chatlab.locale import _

__all__ = ["FILE", "MEASURES", "Recording", "machine", "recorded", "today", "write"]

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
ROUNDS = 3
FLOOD_SECONDS = 1.0
READERS = 8

Values = dict[str, dict[str, list[float]]]  # by measure and by candidate, one value for each round


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
        rows(content["kill"], content["power cut"]["left"]),  # not shown: a key
        {name: {BY_KEY[key]: can for key, can in ways.items()} for name, ways in content["ways"].items()},
        {name: [PROTOCOLS_BY_KEY[key] for key in keys] for name, keys in content["protocols"].items()},
        {name: Order(**order) for name, order in content["orders"].items()},
    )


def rows(killed: Mapping[str, Mapping[str, Sequence[int]]], power_cut: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Return a row for each of the `SETTINGS`, from what is left by engine and key."""
    found = []
    for each in SETTINGS:
        confirmed, left = killed.get(each.engine, {}).get(each.key, (0, None))
        cut = power_cut.get(each.engine, {}).get(each.key)
        found.append(Row(each.engine, each.title, confirmed, left, cut, True))
    return found


def write(content: Mapping[str, Any]) -> None:
    """Write the file, in an order and form in which a change can be read."""
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    recorded.cache_clear()


# --- The machine -----------------------------------------------------------------------------------------------------


def machine() -> str:
    """Return the processor, its cores, the memory and the system; no name of the machine."""
    memory = round(psutil.virtual_memory().total / 2**30)
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{processor()}, {psutil.cpu_count()} cores, {memory} GiB, {system}"  # not shown: figures and names


def processor() -> str:
    """Return the processor's model, or its architecture where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):  # not shown: the file's word
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def today() -> str:
    """Return the date, as 2026-11-27."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


# --- Measuring -------------------------------------------------------------------------------------------------------


async def delays(broker: Broker) -> list[float]:
    """Return the seconds from publish to reader for 150 messages, one at a time, after 50 that are not counted."""
    topic = lesson05.fresh("ping")
    reader, found = await broker.subscribe(topic), []
    for __ in range(200):
        began = time.perf_counter()
        publishing = asyncio.create_task(broker.publish(topic, b"?"))
        await reader.batch()
        found.append(time.perf_counter() - began)
        await publishing
    return found[50:]


async def flood(broker: Broker) -> tuple[int, float]:
    """Return how many messages one reader received, and in how many seconds; 256 are on their way."""
    topic = lesson05.fresh("flood")
    reader, heard, last = await broker.subscribe(topic), 0, b""
    began = time.perf_counter()
    sending = asyncio.create_task(lesson05.publish_for(FLOOD_SECONDS, broker, topic))
    while last != b"end":
        batch = await reader.batch()
        heard, last = heard + len(batch), batch[-1].body
    await sending
    return heard, time.perf_counter() - began


async def one_round(candidates: Sequence[Candidate], values: Values) -> None:
    """Measure everything that is repeated, and add it to the values."""

    def add(measure: str, name: str, value: float | None) -> None:
        if value is not None:
            values.setdefault(measure, {}).setdefault(name, []).append(float(f"{value:.4g}"))

    for name, found in (await lesson05.with_each(candidates, delays, _("latency"))).items():
        add("delay median ms", name, 1000 * statistics.median(found))  # not shown: a key
        add("delay p99 ms", name, 1000 * statistics.quantiles(found, n=100)[-1])
    floods = await lesson05.with_each(candidates, flood, _("throughput"))
    for each in candidates:
        heard, seconds = floods[each.name]
        add("rate client", each.name, heard / seconds)  # not shown: a key
        add("engine µs", each.name, None if each.used is None else 1e6 * each.used / heard)
        work = (await lesson05.fan_out(each, READERS)).each
        add("eight readers µs", each.name, None if work is None else 1e6 * work)  # not shown: a key
        add("late reader", each.name, (await lesson05_abilities.late_readers(each))[0])  # not shown: a key
        if rate := await lesson05_engines.at_the_engine(each, 1):
            add("rate engine", each.name, rate.median)  # not shown: a key
        if each.ours:
            seconds, memory = await one_start(each)
            add("start s", each.name, seconds)
            add("MiB", each.name, memory / 2**20)


async def one_start(candidate: Candidate) -> tuple[float, int]:
    """Start another engine of this kind; return the seconds until its first answer, and the memory it has then."""
    assert candidate.engine is not None
    began = time.monotonic()
    async with await engines.start(candidate.engine.kind, own=True) as engine:
        seconds = time.monotonic() - began
        return seconds, Candidate(candidate.name, candidate.connect, engine).memory() or 0


async def abilities_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return what each engine can do, by the keys of the file; RabbitMQ is restarted with its plugins."""
    keys = {title: key for key, title in BY_KEY.items()}
    ways, orders = {}, {}
    for each in candidates:
        found = {**await lesson05_abilities.routes(each), **await lesson05_abilities.rich(each)}
        ways[each.name] = {keys[title]: can for title, can in found.items()}
        orders[each.name] = asdict(await lesson05.order(each))
    await lesson05.restart_with(candidates, lesson05_abilities.enable_protocols)
    await asyncio.sleep(2)  # a plugin's port opens a moment after the engine's port
    names = {title: key for key, title in PROTOCOLS_BY_KEY.items()}
    spoken = await lesson05_abilities.protocols(candidates)
    return {
        "ways": ways,
        "protocols": {name: [names[title] for title in titles] for name, titles in spoken.items()},
        "orders": orders,
    }


async def kills() -> dict[str, dict[str, Left]]:
    """Return what `kill -9` leaves, by engine and key."""
    found: dict[str, dict[str, Left]] = {}
    for settings in by_engine():
        left = await kill(settings)
        for setting, each in zip(settings, left or (), strict=False):
            found.setdefault(setting.engine, {})[setting.key] = each
    return found


def versions(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the versions of the engines and of what measures them."""
    kinds = {each.engine.kind: each.engine.version for each in candidates if each.engine}
    return {**kinds, "Python": f"Python {platform.python_version()}", "PerfTest": f"PerfTest {load_tools.PERF_TEST}"}


async def measure(rounds: int) -> dict[str, Any]:
    """Return the content of the file, without the power cut. Raises EngineMissing."""
    for kind in lesson05.KINDS:
        engines.find(kind)
    load_tools.java(load_tools.KAFKA)
    lab, values = Lab(), Values()
    try:
        candidates = await lesson05.line_up(lab)
        for number in range(1, rounds + 1):
            print(_("round {number} of {rounds}").format(number=number, rounds=rounds), file=sys.stderr)
            await one_round(candidates, values)
        able = await abilities_of(candidates)
        found = {"machine": machine(), "date": today(), "versions": versions(candidates), "figures": values, **able}
    finally:
        await lab.stop_all()
    return {**found, "kill": await kills()}


def main() -> None:
    """Measure, and write the file; the power cut that is in it stays."""
    parser = argparse.ArgumentParser(description=_("Measure every engine, and write the recorded run of lesson 05."))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=_("how often each figure is measured"))
    rounds = parser.parse_args().rounds
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # progress bars are for notebooks
            content = asyncio.run(measure(rounds))
    except EngineMissing as missing:
        sys.exit(str(missing))
    cut = before.get("power cut", {"machine": "", "date": "", "left": {}})  # not shown: a key
    write({**content, "power cut": cut})  # not shown: likewise


if __name__ == "__main__":
    main()
