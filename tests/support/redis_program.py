"""Run a Redis program with any arguments, on a free or a given port; `engines.start` does not need this."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.kinds import free_ports
from tests.support import require


@contextlib.asynccontextmanager
async def redis_program(
    folder: Path, *arguments: str, kind: str = "redis", port: int | None = None, config: str = ""
) -> AsyncIterator[str]:
    """Run a server; yield its URL once it accepts connections, even if it is still loading data; kill it on exit."""
    try:
        program = engines.find(kind, own=True).program
    except EngineMissing as absent:
        require.missing(kind, absent.remedy)
    port = port or free_ports(1)[0]
    file = write(folder, f"port {port}\nbind 127.0.0.1\ndir {folder}\n{config}\n")
    process = await asyncio.create_subprocess_exec(
        str(program), str(file), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(15):
            while not await accepts(port):
                assert process.returncode is None, f"{program} ended with status {process.returncode}"
                await asyncio.sleep(0.01)
        yield f"redis://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def write(folder: Path, config: str) -> Path:
    """Write the configuration to a file, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "redis.conf"
    file.write_text(config)
    return file


async def accepts(port: int) -> bool:
    """Return whether a server accepts connections on this port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
