"""The chat page's list of people: each name, the first digits of a handle, and (you) or its translation."""

from __future__ import annotations

import re


def listed(entry: str) -> re.Pattern[str]:
    """Return what the list shows for "Ana" or for "Ana (you)": the digits after the name may be any."""
    name, you = re.fullmatch(r"(.*?)( \(\w+\))?", entry, re.DOTALL).groups("")  # type: ignore[union-attr]  # matches all
    return re.compile(rf"^{re.escape(name)} #[0-9a-f]{{4,}}{re.escape(you)}$")
