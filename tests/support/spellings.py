"""Spellings of a destination that an attacker may try: a server, client or reader might treat them as equal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from urllib.parse import quote


def spellings(destination: str) -> Iterator[str]:
    """Yield the destination, then its variants, each once."""
    seen: set[str] = set()
    for variant in _variants(destination):
        if variant not in seen:
            seen.add(variant)
            yield variant


def _variants(destination: str) -> Iterator[str]:
    head, _, last = destination.rpartition("/")
    yield destination
    yield from (unicodedata.normalize(form, destination) for form in ("NFC", "NFD", "NFKD"))
    yield from (
        destination + end
        for end in ("/", "//", ".", "/.", "/..", " ", "\t", "\u200b", "\u00a0", "%00", "%20", ";x", "?x", "#x")
    )
    yield from (start + destination for start in (" ", "/", "/.", "\ufeff", "stomp:", "destination:"))
    yield from (f"{head}{slash}{last}" for slash in ("//", "/./", "/x/../", "\\", "%2F", "%2f", "\u2044", "\uff0f"))
    yield from (destination.upper(), destination.title(), f"{head}/{last.upper()}", f"{head}/{last.capitalize()}")
    yield quote(destination)
    yield f"{head}/{quote(last[:1])}{last[1:]}"
    yield f"{head}/%{ord(last[0]):02X}{last[1:]}"
    yield f"{head}/{last[0]}\u200d{last[1:]}"
    yield f"{head}/{last[0]}\u00ad{last[1:]}"
    yield destination.replace("e", "е").replace("a", "а").replace("o", "о")  # Cyrillic look-alikes, on purpose
    yield "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in destination)
