"""Entries in the chat page's list of people: a name, the first digits of a handle, and (you) or its translation."""

from __future__ import annotations

import re


def listed(entry: str) -> re.Pattern[str]:
    """Return a pattern for the entry "Ana" or "Ana (you)" with any digits after the name."""
    name, you = re.fullmatch(r"(.*?)( \(\w+\))?", entry, re.DOTALL).groups("")  # type: ignore[union-attr]  # matches all
    return re.compile(rf"^{re.escape(name)} #[0-9a-f]{{4,}}{re.escape(you)}$")
