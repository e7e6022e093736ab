"""Observe a set of programs in every case and scenario, and keep what the article's own showed.

    python -m tests.original.observe      runs the original (Java, `make spring`) and writes the recording

The recording is in the package, for lessons on machines without Java: `chatlab.lab.experiments.original`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.original import FILE, Program
from tests.original.cases import CASES
from tests.original.chats import CHATS, LONE, ONE, TWO, Chats, databases, run_case, warm_up
from tests.original.programs import Programs, Spring
from tests.original.rooms import ROOMS

NAMES = (*(case.name for case in CASES), *CHATS, *ROOMS)


async def observe(kind: Callable[[str], Programs], engine: Engine) -> dict[str, Any]:
    """Return what the programs show in every case, by its name. `engine` is a Redis that may be killed."""
    redis = await databases(engine)
    try:
        async with kind(engine.url) as programs:
            one, two, lone, raw = await programs.start_all(("one", ONE), ("two", TWO), ("one", LONE), ("raw", ONE))
            chats = Chats(programs, engine, redis, one, two, lone)
            in_chats, in_rooms = await asyncio.gather(_observe_chats(chats), _observe_rooms(raw))
            return {"version": programs.version} | in_chats | in_rooms
    finally:
        await asyncio.gather(*(client.aclose() for client in redis))


async def _observe_chats(chats: Chats) -> dict[str, Any]:
    await warm_up(chats)
    found = {case.name: await run_case(chats, case) for case in CASES}
    return found | {name: await scenario(chats) for name, scenario in CHATS.items()}


async def _observe_rooms(raw: Program) -> dict[str, Any]:
    return {name: await scenario(raw.url) for name, scenario in ROOMS.items()}


async def record() -> None:
    """Observe the original, and keep it."""
    async with await engines.start("redis", own=True) as engine:
        found = await observe(Spring, engine)
    FILE.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(record())
