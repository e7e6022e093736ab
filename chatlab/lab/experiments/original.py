"""The article's own programs in a cell, where Java is and they are built; elsewhere our rebuild, and the recording.

    one = await lab.start("one", original.start("one", redis_url))   "one", "two": the chat's builds; "raw": the room
    one.url, one.how                                                 "the article's own program, on Spring Boot 3.5.7"
    original.recording()["chat: nobody made the group"]              what the original did when it was run

The rebuild does what the original did, frame by frame, so a cell shows the same with either. In a checkout,
`python -m tests.original.observe` runs the originals and writes the recording. The tests there say what each case sends
and compare both the originals and the rebuild with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from chatlab import room
from chatlab.chat import article
from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.locale import _

__all__ = ["FILE", "Program", "recording", "start", "start_own", "start_rebuilt"]

FILE = Path(__file__).with_name("original.json")
BUILDS: dict[str, article.Build] = {"one": "first", "two": "second"}
PATHS = {"raw": "/room", "one": "/ws/websocket", "two": "/ws/websocket"}


@cache
def recording() -> dict[str, Any]:
    """Return what the programs showed, by the name of the case; "version" is Spring Boot's."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, slots=True)
class Program:
    """A running program: its URL for WebSocket clients, Spring Boot's version, "" for the rebuild, and which it is."""

    url: str
    version: str
    how: str
    aclose: Callable[[], Coroutine[Any, Any, None]]

    def __repr__(self) -> str:
        return self.how


async def start(profile: str, redis_url: str = "") -> Program:
    """Start one of the programs: "raw", "one" or "two"; `aclose` ends it."""
    try:
        return await start_own(profile, redis_url)
    except EngineMissing as absent:
        program = await start_rebuilt(profile, redis_url)
        missing = _("{program}. To have the original here: {remedy}")
        return replace(program, how=missing.format(program=program.how, remedy=absent.remedy))


async def start_own(profile: str, redis_url: str = "") -> Program:
    """Start the article's own program. Raises EngineMissing if it is not built, or there is no Java."""
    engine = await engines.start("spring", options={"profile": profile, "redis": redis_url})
    how = _("the article's own program, on {version}").format(version=engine.version)
    return Program(engine.url.replace("http://", "ws://") + PATHS[profile], engine.version, how, engine.stop)


async def start_rebuilt(profile: str, redis_url: str = "") -> Program:
    """Start our rebuild of it, in this process."""
    starting = room.start_as_in_the_article() if profile == "raw" else article.start(redis_url, build=BUILDS[profile])
    server = await starting
    return Program(server.url, "", _("our rebuild in Python, which does what the original did"), server.aclose)
