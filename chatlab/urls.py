"""Rewriting of URLs for logs, error messages and pages: without passwords.

Left out: parsing a URL to connect to it. The syntax differs by engine (`redis/connections/url.py`).
"""

from __future__ import annotations

import re

_HIDDEN = "***"
_ADDRESS = r"(\[[^\[\]@]*\]|[^\[\]:@,]*)(:\d*)?"  # HOST, HOST:PORT, [IPv6]:PORT, or nothing
_ADDRESSES = re.compile(f"{_ADDRESS}(,{_ADDRESS})*")


def without_password(url: str) -> str:
    """Return the URL with `***` for its password, and without its query, which may hold passwords too.

    Never raises, because invalid URLs have to be shown too. Anything that might be part of a password is hidden.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        return _HIDDEN if "@" in url else url
    before = re.match(r"[^?#]*", rest)
    assert before is not None  # the pattern also matches the empty string
    authority, slash, path = before[0].partition("/")
    user_info, at, address = authority.rpartition("@")
    # A later "@", or a port that is not a number: the password contains "/", "?" or "#", and where it ends is unknown.
    if ("@" in path and authority) or "@" in rest[before.end() :] or not _ADDRESSES.fullmatch(address):
        return f"{scheme}://{_HIDDEN}"
    user, colon, password = user_info.partition(":")
    return f"{scheme}://{user}{colon}{_HIDDEN if password else ''}{at}{address}{slash}{path}"
