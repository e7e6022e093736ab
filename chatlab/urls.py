"""URLs as a log, an error or a page may show them.

Left out: taking a URL apart to connect to it. What may be written in one differs by engine (`redis/url.py`).
"""

from __future__ import annotations

import re

_HIDDEN = "***"
_ADDRESS = r"(\[[^\[\]@]*\]|[^\[\]:@,]*)(:\d*)?"  # HOST, HOST:PORT, [IPv6]:PORT, or nothing
_ADDRESSES = re.compile(f"{_ADDRESS}(,{_ADDRESS})*")


def without_password(url: str) -> str:
    """Return the URL with `***` for its password, and without its query, which may hold passwords too.

    It never raises, because a wrong URL has to be shown as well. What might be part of a password is hidden.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        return _HIDDEN if "@" in url else url
    before = re.match(r"[^?#]*", rest)
    assert before is not None  # it matches nothing, too
    authority, slash, path = before[0].partition("/")
    user_info, at, address = authority.rpartition("@")
    # An "@" further on, or a port that is no number: a password with a "/", "?" or "#" in it, and no end we know of.
    if ("@" in path and authority) or "@" in rest[before.end() :] or not _ADDRESSES.fullmatch(address):
        return f"{scheme}://{_HIDDEN}"
    user, colon, password = user_info.partition(":")
    return f"{scheme}://{user}{colon}{_HIDDEN if password else ''}{at}{address}{slash}{path}"
