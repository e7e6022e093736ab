"""`chatlab doctor`: what is here, which versions, and for what is missing the one command that brings it.

It looks and asks for versions; it installs nothing and starts nothing. What each package must at least be is read from
chatlab's own metadata, so that there is no second list to keep.
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

from rich.table import Table

import chatlab
from chatlab.errors import SetupError
from chatlab.lab.engines import engine as engines

__all__ = ["Check", "as_json", "as_table", "bring_the_lab", "examine"]

# Lesson 03 fills a room with a hundred members: two descriptors for each, as both ends are here, and the rest beside.
OPEN_FILES = 1024
ENGINES = {"redis": "Redis or Valkey", "rabbitmq": "RabbitMQ", "kafka": "Kafka"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: whether all is well, what was found, what to do. Only what is `needed` stops a lesson."""

    name: str
    well: bool
    found: str
    remedy: str = ""
    needed: bool = True

    @property
    def sign(self) -> str:
        """What stands in front of it: well, missing, or missing where nothing depends on it."""
        return "✔" if self.well else "✘" if self.needed else "○"


async def examine() -> list[Check]:
    """Look at everything, the set-up's own parts first."""
    checks = [python(), *packages(), widgets(), kernel(), open_files()]
    return [*checks, *[await engine(kind, name) for kind, name in ENGINES.items()]]


def as_table(checks: Sequence[Check]) -> Table:
    """The checks for a reader, in a terminal or a notebook."""
    table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.sign, check.name, check.found, check.remedy)
    return table


def as_json(checks: Sequence[Check]) -> str:
    """The checks for a program."""
    return json.dumps([asdict(check) for check in checks], indent=1)  # in ASCII, which every pipe carries


def bring_the_lab() -> str:
    """The one command that brings all the packages, in the way they came here."""
    clone = Path(chatlab.__file__).resolve().parents[1]
    if Path(sys.prefix).resolve() == clone / ".venv":
        return "`rm -rf .venv && make lab`"
    if (Path(sys.prefix) / "conda-meta").exists():
        return "`conda env update --file environment.yml`"
    source = clone if (clone / "pyproject.toml").exists() else "chatlab"
    return f"`{Path(sys.executable).name} -m pip install '{source}[lab]'`"


def python() -> Check:
    """The interpreter, and the system under it."""
    well = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", well, found, "" if well else "install Python 3.11 or newer")


def packages() -> Iterator[Check]:
    """Every package chatlab asks for, those of the lab too, held against the version it asks for."""
    if find_spec("packaging") is None:  # JupyterLab has it: where it is missing, so is the whole lab
        yield Check("the lab's packages", False, "not installed", bring_the_lab())
        return
    from packaging.requirements import Requirement

    for requirement in map(Requirement, metadata.requires("chatlab") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": "lab"}):
            version = version_of(requirement.name)
            well = version is not None and requirement.specifier.contains(version, prereleases=True)
            found = version or "not installed"
            yield package(requirement.name, found if well else f"{found}, wanted {requirement.specifier}", well)


def package(name: str, found: str, well: bool) -> Check:
    """One package."""
    return Check(name, well, found, "" if well else bring_the_lab())


def widgets() -> Check:
    """Whether the panels will answer to clicks.

    ipykernel before 7.4 ran widget callbacks on another thread, where a button's work never starts; JupyterLab needs
    the widgets' own extension to draw them at all.
    """
    kernel, jupyterlab, drawn = version_of("ipykernel"), version_of("jupyterlab"), _widget_extension()
    found = f"ipykernel {kernel}, JupyterLab {jupyterlab}, extension {'there' if drawn else 'missing'}"
    well = drawn and _at_least(kernel, (7, 4)) and _at_least(jupyterlab, (4,))
    return Check("widgets are live", well, found, "" if well else bring_the_lab())


def kernel() -> Check:
    """Whether the notebooks' kernel is this Python, and not one that some other project registered."""
    if find_spec("jupyter_client") is None:
        return Check("the notebooks' kernel", False, "no Jupyter here", bring_the_lab())
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check("the notebooks' kernel", False, "no kernel called python3", bring_the_lab())
    # jupyter_client puts its own interpreter in place of a bare "python".
    well = program in {"python", "python3", f"python3.{sys.version_info.minor}"} or _same_file(program, sys.executable)
    remedy = "`python -m ipykernel install --sys-prefix`"
    return Check("the notebooks' kernel", well, "this Python" if well else program, "" if well else remedy)


def open_files() -> Check:
    """How many connections this process may have."""
    if os.name != "posix":
        return Check("open files", True, "no limit to speak of")
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    well = limit == resource.RLIM_INFINITY or limit >= OPEN_FILES
    return Check("open files", well, f"{limit} allowed", "" if well else f"`ulimit -n {4 * OPEN_FILES}`")


async def engine(kind: str, name: str) -> Check:
    """One kind of broker engine: the lessons want Redis, and go on without the others."""
    try:
        found = engines.find(kind)
        running = None if found.url is None else await engines.already_running(found, found.url)
    except SetupError as error:
        return Check(name, False, str(error).removesuffix(f"; {error.remedy}"), error.remedy, needed=kind == "redis")
    risk = await engines.crash_risk(kind, running)
    version = found.version if running is None else running.version
    return Check(name, True, "; ".join(filter(None, [f"{version}, {found.how}", risk])))


def version_of(package: str) -> str | None:
    """The installed version."""
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
