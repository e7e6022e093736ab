"""What `kill -9` and a power cut leave of 200 messages, setting by setting.

    await table(candidates)      # a Row for each setting

`kill -9` is measured here, on engines that are started for it, so that those of the lesson live on. A power cut is
recorded: it needs root, and a disk that can be cut off (`benchmarks/power_cut.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.recorded import recorded
from chatlab.lab.experiments.trials.faults import MESSAGES, Row, Setting, by_engine, kill
from chatlab.lab.progress import Progress

__all__ = ["MESSAGES", "Row", "table"]


async def table(candidates: Iterable[Candidate]) -> list[Row]:
    """Return a row for each of the `SETTINGS`: measured where its engine can be started here, recorded elsewhere."""
    kinds = {candidate.engine.kind for candidate in candidates if candidate.engine}
    groups = list(by_engine())
    with Progress("kill -9", len(groups)) as progress:
        found = await asyncio.gather(*(_killed(group, kinds, progress) for group in groups))
    return [row for rows in found for row in rows]


async def _killed(settings: list[Setting], kinds: set[str], progress: Progress) -> list[Row]:
    """Return the rows of the settings that share an engine."""
    before = {(row.engine, row.setting): row for row in recorded().persistence}
    rows = [before[each.engine, each.title] for each in settings]
    step = f"{settings[0].engine}: {settings[0].title}"
    progress.begin(step)
    try:
        found = await kill(settings) if settings[0].kind in kinds else None
    finally:
        progress.done(step)
    if found is None:
        return rows
    return [
        row._replace(confirmed=each.confirmed, after_kill=each.left, recorded=False)
        for row, each in zip(rows, found, strict=True)
    ]
