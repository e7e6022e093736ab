"""`chatlab doctor --workshop`: a rehearsal for the day before, on your own machine and on one laptop of each kind.

The plain doctor only looks. This one does briefly what a class will do: it opens the room to the local network and
fills it, starts an engine, JupyterLab and a kernel, and runs the first cells of the workbook. The processes it starts
are configured with a proxy that does not exist, so that any download fails today and not in class. Everything is
stopped again. Left out: what is between your machine and the others, such as a firewall or a Wi-Fi that isolates its
clients; only another machine can test that, and the check says how.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import nbformat
import psutil
from packaging.markers import default_environment
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

import chatlab
from chatlab import classroom, room
from chatlab.errors import SetupError
from chatlab.lab.clients import RoomClient
from chatlab.lab.doctor.checks import Check, bring_the_lab
from chatlab.lab.editions import shipped
from chatlab.lab.engines import engine as engines
from chatlab.locale import _, ngettext

__all__ = ["examine"]

ROOM_PORT = 8002  # where `chatlab serve room --lan` listens
# The processes of lesson 07 hold 0.3 GiB together; the rest is for JupyterLab, a browser, and lesson 05's engines.
MEMORY = 2 << 30
CORES = 2
SECONDS_TO_RECEIVE = 3.0
SECONDS_TO_FIRST_CELL = 60.0
NOWHERE = "http://127.0.0.1:9"  # the port of "discard", where nothing listens
OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}


async def examine(laptops: int) -> list[Check]:
    """Rehearse a class of `laptops`, one check after the other, so that none slows down another."""
    checks = [memory(), cores(), notebooks(), wheelhouse(), address()]
    return [*checks, await full_room(laptops), await engine(), *await workbook()]


# --- The machine, and what is on it ---


def memory() -> Check:
    """Check the free memory."""
    free = psutil.virtual_memory().available
    remedy = _("close what is not needed, the browser's other tabs first; or let two people share a laptop")
    found = _("{size:.1f} GiB free").format(size=free / 2**30)
    return _check(_("memory for the lessons"), free >= MEMORY, found, remedy)


def cores() -> Check:
    """Check the number of processors: lesson 07 runs seven processes, which on one core only wait for each other."""
    count = os.cpu_count() or 1
    remedy = _("lessons 04, 05 and 07 will be slow: let two people share a laptop")
    return _check(_("processors"), count >= CORES, f"{count}", remedy)


def notebooks() -> Check:
    """Check that the notebooks are unchanged."""
    try:
        changed = shipped.changed()
    except SetupError as error:
        return Check(_("notebooks as shipped"), False, str(error).removesuffix(f"; {error.remedy}"), error.remedy)
    found = _("changed: {names}").format(names=", ".join(changed)) if changed else _("nothing changed")
    return _check(_("notebooks as shipped"), not changed, found, _("`chatlab reset` sets your copies aside"))


def wheelhouse(clone: Path = Path(chatlab.__file__).parents[1]) -> Check:
    """Check that `make lab` can install from the wheelhouse, on a machine like this one."""
    if not (clone / "wheelhouse").is_dir():
        found = _("none: `make lab` needs the network the first time")
        remedy = _("`make wheelhouse`, if not every laptop has chatlab yet")
        return Check(_("wheelhouse"), False, found, remedy, needed=False)
    lacking = list(_lacking(clone))
    complete = _("complete for machines like this one")
    found = _("lacks {names}").format(names=", ".join(lacking)) if lacking else complete
    return _check(_("wheelhouse"), not lacking, found, _("`make wheelhouse`; it downloads what is missing"))


def _lacking(clone: Path) -> Iterator[str]:
    """Yield the locked packages without a file in the wheelhouse that has a locked hash and runs here."""
    runs_here = set(sys_tags())
    hashes = set()
    for file in (clone / "wheelhouse").glob("*.whl"):
        with contextlib.suppress(InvalidWheelFilename):
            if parse_wheel_filename(file.name)[3] & runs_here:
                hashes.add(hashlib.sha256(file.read_bytes()).hexdigest())
    for pin in _tool(clone / "tools" / "wheelhouse.py").select(default_environment()):
        name, *allowed = pin.split(" --hash=sha256:")
        if not hashes & set(allowed):
            yield name


def _tool(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("chatlab_wheelhouse_tool", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its module
    spec.loader.exec_module(module)
    return module


# --- The room for all ---


def address() -> Check:
    """Check that this machine is on a network that the others can reach it through."""
    found = classroom.lan_address()
    remedy = _("join the network of the room; a phone's hotspot is enough, it needs no internet")
    return _check(_("address on the network"), not found.startswith("127."), found, remedy)


async def full_room(laptops: int, port: int = ROOM_PORT) -> Check:
    """Open the room as `chatlab serve room --lan` does, fill it through the LAN address, and let every member send."""
    name, code = _("a room for {count}").format(count=laptops), classroom.new_code()
    try:
        server = await room.start(host="0.0.0.0", port=port, code=code, rate=room.RateLimit(10, burst=10, patience=50))
    except OSError:
        remedy = _("stop what listens on port {port}, or use `chatlab serve room --lan --port NUMBER`").format(
            port=port
        )
        return Check(name, False, _("port {port} is taken").format(port=port), remedy)
    async with server:
        page = server.page_url(classroom.lan_address()).partition("#")[0]
        url = f"ws://{urlsplit(page).netloc}/room"
        members = [RoomClient(url, f"laptop {number}", code=code) for number in range(1, laptops + 1)]
        try:
            seconds = await _all_send(members)
        except (OSError, TimeoutError):
            remedy = _("allow Python in this machine's firewall, for private networks; then run this again")
            return Check(name, False, _("not all could send and receive at {page}").format(page=page), remedy)
        finally:
            await asyncio.gather(*(member.vanish() for member in members))
    found = _(
        "all received all within {milliseconds:.0f} ms; while `chatlab serve room --lan` runs, try {page} elsewhere"
    ).format(milliseconds=seconds * 1000, page=page)
    remedy = _("close what keeps this machine busy, or use a faster one for the room")
    return _check(name, seconds < SECONDS_TO_RECEIVE, found, remedy)


async def _all_send(members: list[RoomClient]) -> float:
    """Have every member send one message at once; return the seconds until each has received them all."""
    async with asyncio.timeout(30):
        await asyncio.gather(*(member.connect() for member in members))
        began = time.perf_counter()
        await asyncio.gather(*(member.send(f"안녕 {member.name}.") for member in members))
        for receiver in members:
            for sender in members:
                await receiver.heard(f"안녕 {sender.name}.", timeout=30)
        return time.perf_counter() - began


# --- The workbook ---


async def engine() -> Check:
    """Start the Redis that the lessons use, in a temporary folder."""
    name = _("an engine starts")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        try:
            async with await engines.start("redis", Path(folder)) as started:
                line = _("{version} in {seconds:.1f} s, {how}")
                seconds = time.perf_counter() - began
                found = line.format(version=started.version, seconds=seconds, how=started.how)
        except SetupError as error:
            return Check(name, False, str(error).removesuffix(f"; {error.remedy}"), error.remedy)
    return Check(name, True, found)


async def workbook() -> list[Check]:
    """Start JupyterLab and a kernel, as a learner does, and run the first cells: a chat, and its own check."""
    began = time.perf_counter()
    async with _jupyterlab() as (url, token):
        up = time.perf_counter() - began
        if not url:
            return [Check(_("JupyterLab starts"), False, _("it did not"), _("`chatlab lab` says why"))]
        local = await assets(url, token)
    began = time.perf_counter()
    output = await _first_cells()
    took = up + time.perf_counter() - began
    remedy = _("the second time is quicker: start the workbook once on every laptop before the class")
    return [
        Check(_("JupyterLab starts"), True, _("in {seconds:.1f} s").format(seconds=up)),
        local,
        _check(
            _("the first cells say ready"),
            output == "ready",
            output or _("nothing"),
            _("`chatlab doctor` says what is missing"),
        ),
        _check(
            _("time until the first cells have run"),
            took < SECONDS_TO_FIRST_CELL,
            _("{seconds:.0f} s").format(seconds=took),
            remedy,
        ),
    ]


@contextlib.asynccontextmanager
async def _jupyterlab() -> AsyncIterator[tuple[str, str]]:
    """Run a separate JupyterLab: yield its URL, empty if it did not start, and its token."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {f"JUPYTER{name}_DIR": scratch for name in ("_RUNTIME", "_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES")}
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"],
            *["--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}"],
            cwd=shipped.notebooks(),
            env={**os.environ, **OFFLINE, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield (url if await _answers(f"{url}/login", process) else ""), token
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> bool:
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + SECONDS_TO_FIRST_CELL
        while process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    return answer.ok
            await asyncio.sleep(0.1)
    return False


class Page(HTMLParser):
    """What a page loads: its scripts and style sheets, and the extensions in JupyterLab's settings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wanted: list[str] = []
        self.settings: dict[str, Any] = {}
        self._in_settings = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a script or a style sheet."""
        named = dict(attrs)
        if (tag == "script" and named.get("src")) or (tag == "link" and named.get("rel") == "stylesheet"):
            self.wanted.append(named.get("src") or named.get("href") or "")
        self._in_settings = named.get("id") == "jupyter-config-data"

    def handle_data(self, data: str) -> None:
        """Read the extensions from the settings."""
        if self._in_settings and data.strip():
            self.settings = json.loads(data)
            folder = self.settings["fullLabextensionsUrl"]
            self.wanted += [f"{folder}/{each['name']}/{each['load']}" for each in self.settings["federated_extensions"]]

    def handle_endtag(self, tag: str) -> None:
        """End the settings with their element."""
        self._in_settings = False


async def assets(url: str, token: str) -> Check:
    """Check that a browser gets all of JupyterLab from this machine."""
    name = _("JupyterLab comes from this machine")
    async with aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as session:
        async with session.get(f"{url}/lab") as answer:
            page = Page(await answer.text())
        addresses = [urljoin(f"{url}/lab", wanted) for wanted in page.wanted]
        elsewhere = [each for each in addresses if urlsplit(each).netloc != urlsplit(url).netloc]
        missing = [each for each in addresses if each not in elsewhere and not await _is_there(session, each)]
    if elsewhere or missing or not page.settings:
        found = _("from elsewhere: {elsewhere}; missing: {missing}").format(elsewhere=elsewhere, missing=missing)
        return Check(name, False, found, bring_the_lab())
    count = len(addresses)
    found = ngettext("{count} script or style, local", "{count} scripts and styles, all local", count)
    return Check(name, True, found.format(count=count))


async def _is_there(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(url) as answer:
        return answer.ok


async def _first_cells() -> str:
    """Run lesson 00 as far as its own check in a new kernel; return what was printed, or why it could not run."""
    from jupyter_client.manager import AsyncKernelManager

    first = shipped.notebooks() / "00_start_here.ipynb"
    sources = [cell.source for cell in nbformat.read(first, as_version=4).cells if cell.cell_type == "code"]
    check = next(number for number, source in enumerate(sources) if "doctor.examine" in source)
    manager = AsyncKernelManager(kernel_name="python3")
    printed: list[str] = []
    try:
        silent = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
        await manager.start_kernel(cwd=str(first.parent), env={**os.environ, **OFFLINE}, **silent)
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=SECONDS_TO_FIRST_CELL)
        for source in sources[: check + 1]:
            await client.execute_interactive(
                source, timeout=SECONDS_TO_FIRST_CELL, output_hook=lambda message: printed.append(_text(message))
            )
        client.stop_channels()
    except (RuntimeError, TimeoutError) as error:
        return _("the kernel did not answer: {error}").format(error=error)
    finally:
        await manager.shutdown_kernel(now=True)
    return re.sub(r"\s+", " ", "".join(printed)).strip()


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return str(content.get("text") or content.get("evalue") or "")


def _check(name: str, well: bool, found: str, remedy: str) -> Check:
    return Check(name, well, found, "" if well else remedy)
