"""Run `chatlab` as a process: read its output line by line, wait for its exit status, send it signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

CHATLAB = (sys.executable, "-P", "-m", "chatlab.cli")
TIMEOUT = 20.0


class Command:
    """A running `chatlab` process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []  # of standard output, read so far
        self.encoding = "utf-8"  # of its output

    async def url(self) -> str:
        """Wait for its first URL, and return it."""
        return (await self.line("listening on ")).removeprefix("listening on ")

    async def line(self, beginning: str) -> str:
        """Wait for a line that begins with `beginning`, and return it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while line := (await self.process.stdout.readline()).decode(self.encoding):
                self.lines.append(line.rstrip("\n"))
                if line.startswith(beginning):
                    return self.lines[-1]
        _, errors = await self.process.communicate()
        raise AssertionError(f"no line began with {beginning!r}: {self.lines} {errors.decode(self.encoding)}")

    async def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit status, the rest of standard output, and standard error."""
        async with asyncio.timeout(TIMEOUT):
            output, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, output.decode(self.encoding), errors.decode(self.encoding)


@asynccontextmanager
async def chatlab(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Command]:
    """Run `chatlab` with these arguments, and kill it on exit if it is still running."""
    process = await asyncio.create_subprocess_exec(
        *CHATLAB,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**{name: value for name, value in os.environ.items() if name != "REDIS_URL"}, **(environment or {})},
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


async def run(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run `chatlab` to its end; return the exit status, standard output and standard error."""
    async with chatlab(*arguments, environment=environment) as command:
        return await command.ended()
