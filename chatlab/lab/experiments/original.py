"""What the article's own programs did when they were run with Java, for a lesson on a machine without it.

    original.recording()["chat: nobody made the group"]

In a checkout, `python -m tests.original.observe` runs them and writes the recording. The tests there say what each case
sends, and hold both the programs and our rebuild of them to it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["FILE", "recording"]

FILE = Path(__file__).with_name("original.json")


@cache
def recording() -> dict[str, Any]:
    """Return what the programs showed, by the name of the case; "version" is Spring Boot's."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
