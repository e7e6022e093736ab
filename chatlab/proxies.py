"""Proxies named by the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY): they do not lead back to this machine.

    connect(url, proxy=proxy_for(url))      websockets: no proxy to loopback, the environment's to everywhere else
    keep_loopback_direct()                  for code that is not ours, such as a learner's: extend NO_PROXY

A company or campus sets these variables, often without NO_PROXY, and then `websockets` and `urllib` ask the proxy for
127.0.0.1, which from there is another machine. Left out: proxies that macOS or Windows keeps in its own settings, which
name their exceptions there.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["is_loopback", "keep_loopback_direct", "proxy_for"]

# As `urllib` compares them, by name, and an IPv6 address with its brackets; `websockets` asks without the brackets.
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether this name or address of a host always means this machine (RFC 1122, 3.2.1.3; RFC 4291; RFC 6761, 6.3)."""
    name = host.lower().strip("[]").removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> Literal[True] | None:
    """Return what `websockets.connect` takes as `proxy`: None, or True for the one that the environment names."""
    return None if is_loopback(urlsplit(url).hostname or "") else True


def keep_loopback_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Extend NO_PROXY by this machine, for this process and those it starts; without a proxy, change nothing.

    Nothing is set where no variable names a proxy, because `urllib` stops looking at the system's own settings as soon
    as one does, NO_PROXY included.
    """
    names = {name.lower() for name, value in environment.items() if value}
    if not any(name.endswith("_proxy") for name in names - {"no_proxy"}):
        return
    # Where both are set, `urllib` and curl go by the one in small letters.
    stated = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    direct = [each for each in (part.strip() for part in stated.split(",")) if each]
    if "*" not in direct:
        direct += [host for host in LOOPBACK if host not in direct]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(direct)
