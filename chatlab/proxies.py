"""Proxies from the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY), which must not be used for loopback.

    connect(url, proxy=proxy_for(url))      websockets: no proxy for loopback, the environment's for all other hosts
    keep_loopback_direct()                  for code that is not ours, such as a learner's: extend NO_PROXY

Companies and campuses set these variables, often without NO_PROXY. Then `websockets` and `urllib` ask the proxy for
127.0.0.1, which is a different machine there. Left out: proxies in the system settings of macOS or Windows, which have
their own lists of exceptions.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["is_loopback", "keep_loopback_direct", "proxy_for"]

# `urllib` compares hosts as text, with an IPv6 address in brackets; `websockets` looks it up without the brackets.
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address always means this machine (RFC 1122, 3.2.1.3; RFC 4291; RFC 6761, 6.3)."""
    name = host.lower().strip("[]").removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> Literal[True] | None:
    """Return the `proxy` argument for `websockets.connect`: None, or True to use the environment's proxy."""
    return None if is_loopback(urlsplit(url).hostname or "") else True


def keep_loopback_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add loopback hosts to NO_PROXY, for this process and its children. Without a proxy, change nothing.

    Nothing is set if no variable names a proxy, because setting any of these variables, NO_PROXY included, makes
    `urllib` ignore the system settings.
    """
    names = {name.lower() for name, value in environment.items() if value}
    if not any(name.endswith("_proxy") for name in names - {"no_proxy"}):
        return
    # If both are set, `urllib` and curl use the lower-case one.
    stated = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    direct = [each for each in (part.strip() for part in stated.split(",")) if each]
    if "*" not in direct:
        direct += [host for host in LOOPBACK if host not in direct]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(direct)
