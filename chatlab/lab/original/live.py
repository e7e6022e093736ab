"""One of the article's programs for a cell: the original where it is built and Java is here, else our rebuild.

    one = await lab.start("one", start("one", redis_url))      "one", "two": the chat's builds; "raw": the room
    one.url, one.how                                           "the article's own program, on Spring Boot 3.5.7"

The rebuild does what the original did, frame by frame (tests/lab/original), so a cell shows the same with either.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from chatlab.errors import EngineMissing
from chatlab.lab.original.programs import Rebuilt, Spring
from chatlab.locale import _


@dataclass(frozen=True, slots=True)
class Live:
    """A running program; `how` says which one it is."""

    url: str
    how: str
    aclose: Callable[[], Coroutine[Any, Any, None]]

    def __repr__(self) -> str:
        return self.how


async def start(profile: str, redis_url: str = "") -> Live:
    """Start one program, which ends with `aclose`."""
    programs = Spring(redis_url)
    try:
        program = await programs.start(profile)
        return Live(
            program.url, _("the article's own program, on {version}").format(version=programs.version), program.stop
        )
    except EngineMissing as absent:
        program = await Rebuilt(redis_url).start(profile)
        how = _("our rebuild in Python, which does what the original did. To have the original here: {remedy}")
        return Live(program.url, how.format(remedy=absent.remedy), program.stop)
