"""`chatlab doctor`: what is installed, in which versions, and for what is missing the one command that installs it.

It only looks and asks for versions; it installs nothing and starts nothing. The required versions of packages are read
from chatlab's metadata, so that there is no second list to maintain.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

import chatlab
from chatlab.errors import SetupError
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import kafka_jars, load_tools
from chatlab.locale import _

__all__ = ["Check", "as_json", "as_table", "bring_the_lab", "examine"]

# Lesson 03 fills a room with a hundred members: two descriptors each, as both ends are here, plus everything else.
OPEN_FILES = 1024
ENGINES = {
    "redis": _("Redis or Valkey"),
    "rabbitmq": "RabbitMQ",
    "kafka": "Kafka",
    "spring": _("the article's programs"),
}
LOAD = _("load generators")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: whether it passed, what was found, and the remedy. Lessons only fail without what is `needed`."""

    name: str
    well: bool
    found: str
    remedy: str = ""
    needed: bool = True

    @property
    def sign(self) -> str:
        """The symbol in front of it: passed, failed, or failed where nothing depends on it."""
        return "✔" if self.well else "✘" if self.needed else "○"


async def examine() -> list[Check]:
    """Run every check, those of the installation first."""
    checks = [python(), *packages(), widgets(), kernel(), open_files()]
    return [*checks, *[await engine(kind, name) for kind, name in ENGINES.items()], load_generators()]


def as_table(checks: Sequence[Check]) -> Group:
    """Return the checks for a terminal or a notebook: a table, and below it what to do, whose commands are not cut."""
    table = Table("", _("what"), Column(_("found"), overflow="fold"), box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.sign, check.name, check.found)
    todo = [f"{check.sign} {check.name}: {check.remedy}" for check in checks if check.remedy]
    lines = [Text(line, overflow="fold") for line in ([_("what to do"), *todo] if todo else [])]
    return Group(table, *lines)


def as_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON."""
    return json.dumps([asdict(check) for check in checks], indent=1)  # in ASCII, which every encoding has


def bring_the_lab() -> str:
    """Return the command that installs all the packages, in the way this chatlab was installed."""
    clone = Path(chatlab.__file__).resolve().parents[1]
    if Path(sys.prefix).resolve() == clone / ".venv":
        return "`rm -rf .venv && make lab`"
    if (Path(sys.prefix) / "conda-meta").exists():
        return "`conda env update --file environment.yml`"  # not shown: a command
    source = clone if (clone / "pyproject.toml").exists() else "chatlab"
    return f"`{Path(sys.executable).name} -m pip install '{source}[lab]'`"  # not shown: a command


def python() -> Check:
    """Check the interpreter; report the system too."""
    well = sys.version_info >= (3, 11)
    found = _("{version} on {system} {machine}").format(
        version=platform.python_version(), system=platform.system(), machine=platform.machine()
    )
    return Check("Python", well, found, "" if well else _("install Python 3.11 or newer"))


def packages() -> Iterator[Check]:
    """Check each package that chatlab requires, with the lab's, against the required version."""
    if find_spec("packaging") is None:  # JupyterLab needs it: without it, the whole lab is missing
        yield Check(_("the lab's packages"), False, _("not installed"), bring_the_lab())
        return
    from packaging.requirements import Requirement

    for requirement in map(Requirement, metadata.requires("chatlab") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": "lab"}):
            version = version_of(requirement.name)
            well = version is not None and requirement.specifier.contains(version, prereleases=True)
            found = version or _("not installed")
            if not well:
                found = _("{found}, wanted {version}").format(found=found, version=requirement.specifier)
            yield package(requirement.name, found, well)


def package(name: str, found: str, well: bool) -> Check:
    """Return the check of one package."""
    return Check(name, well, found, "" if well else bring_the_lab())


def widgets() -> Check:
    """Check that the panels will respond to clicks.

    ipykernel before 7.4 ran widget callbacks on another thread, where a button's work never starts; JupyterLab needs
    the widgets' own extension to draw them at all.
    """
    kernel, jupyterlab, drawn = version_of("ipykernel"), version_of("jupyterlab"), _widget_extension()
    if drawn:
        found = _("ipykernel {kernel}, JupyterLab {jupyterlab}, extension there")
    else:
        found = _("ipykernel {kernel}, JupyterLab {jupyterlab}, extension missing")
    found = found.format(kernel=kernel, jupyterlab=jupyterlab)
    well = drawn and _at_least(kernel, (7, 4)) and _at_least(jupyterlab, (4,))
    return Check(_("widgets are live"), well, found, "" if well else bring_the_lab())


def kernel() -> Check:
    """Check that the notebooks' kernel is this Python, and not one that another project registered."""
    if find_spec("jupyter_client") is None:
        return Check(_("the notebooks' kernel"), False, _("no Jupyter here"), bring_the_lab())
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check(_("the notebooks' kernel"), False, _("no kernel called python3"), bring_the_lab())
    # jupyter_client replaces a bare "python" with its own interpreter.
    well = program in {"python", "python3", f"python3.{sys.version_info.minor}"} or _same_file(program, sys.executable)
    remedy = "`python -m ipykernel install --sys-prefix`"  # not shown: a command, the same in every language
    return Check(_("the notebooks' kernel"), well, _("this Python") if well else program, "" if well else remedy)


def open_files() -> Check:
    """Check how many files, and so connections, this process may open."""
    if os.name != "posix":
        return Check(_("open files"), True, _("no practical limit"))
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    well = limit == resource.RLIM_INFINITY or limit >= OPEN_FILES
    return Check(
        _("open files"), well, _("{count} allowed").format(count=limit), "" if well else f"`ulimit -n {4 * OPEN_FILES}`"
    )


async def engine(kind: str, name: str) -> Check:
    """Check one kind of broker engine: the lessons need Redis, and work without the others."""
    try:
        found = engines.find(kind)
        running = None if found.url is None else await engines.already_running(found, found.url)
    except SetupError as error:
        return Check(name, False, str(error).removesuffix(f"; {error.remedy}"), error.remedy, needed=kind == "redis")
    risk = await engines.crash_risk(kind, running)
    version = found.version if running is None else running.version
    return Check(
        name, True, "; ".join(filter(None, [_("{version}, {how}").format(version=version, how=found.how), risk]))
    )


def load_generators() -> Check:
    """Check for what measures RabbitMQ and Kafka without Python; lesson 05 has recorded figures for those without."""
    try:
        load_tools.java(load_tools.RABBITMQ)
    except SetupError as error:
        return Check(LOAD, False, str(error).removesuffix(f"; {error.remedy}"), error.remedy, needed=False)
    return Check(LOAD, True, f"PerfTest {load_tools.PERF_TEST}, ProducerPerformance {kafka_jars.VERSION}")


def version_of(package: str) -> str | None:
    """Return the installed version, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _at_least(version: str | None, wanted: tuple[int, ...]) -> bool:
    numbers = (version or "").split(".")[: len(wanted)]
    return all(number.isdecimal() for number in numbers) and tuple(map(int, numbers)) >= wanted


def _widget_extension() -> bool:
    if find_spec("jupyter_core") is None:
        return False
    from jupyter_core.paths import jupyter_path

    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    return any((folder / "@jupyter-widgets" / "jupyterlab-manager").exists() for folder in folders)


def _same_file(one: str, other: str) -> bool:
    return Path(one).exists() and Path(one).samefile(other)
