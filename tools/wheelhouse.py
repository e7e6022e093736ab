"""Bring all that `make lab` installs into wheelhouse/, to be carried on a stick to machines without a network.

    make wheelhouse                                        for machines like this one
    make wheelhouse WHEELHOUSE_FOR="3.12:linux-x86_64 3.13:macos-arm64"

Copy the whole folder of the project to the stick. Where there is a wheelhouse/, `make lab` installs from it and asks no
index. Hashes are checked on the way in and again on the way out. Left out: Python and make themselves.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "lab.txt"
WHEELHOUSE = ROOT / "wheelhouse"

# For each kind of machine: what its Python says of itself, and the tags of the wheels it takes. Windows is not here,
# since chatlab runs there inside WSL, which is Linux.
MACHINES = {
    "linux-x86_64": ("linux", "x86_64", [f"manylinux_2_{minor}_x86_64" for minor in range(5, 29)]),
    "linux-aarch64": ("linux", "aarch64", [f"manylinux_2_{minor}_aarch64" for minor in range(17, 29)]),
    "macos-arm64": ("darwin", "arm64", ["macosx_14_0_arm64"]),
    "macos-x86_64": ("darwin", "x86_64", ["macosx_13_0_x86_64"]),
}


LATE_PATCH = 99  # a marker asks for a patch release at most to tell the first ones from the rest


@dataclass(frozen=True, slots=True)
class Target:
    """A Python, such as "3.12", on a machine, one of `MACHINES`."""

    python: str
    machine: str

    def environment(self, patch: int) -> dict[str, str]:
        """What the lock's markers ask of this Python at this patch release."""
        system, machine, _ = MACHINES[self.machine]
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "platform_system": system.capitalize(),
            "python_full_version": f"{self.python}.{patch}",
            "python_version": self.python,
            "sys_platform": system,
        }


def main(names: list[str]) -> None:
    """Fetch for each of `names` (PYTHON:MACHINE), or for machines like this one."""
    for target in [parse(name) for name in names] or [this_machine()]:
        print(f"for Python {target.python} on {target.machine}", flush=True)
        for patch, pins in selections(target).items():
            fetch(target, patch, pins)
    size = sum(file.stat().st_size for file in WHEELHOUSE.iterdir())
    print(f"{WHEELHOUSE.name}/ has {size / 1e6:.0f} MB; with it `make lab` needs no network")


def parse(name: str) -> Target:
    """ "3.12:linux-x86_64" as a target; ends with what there is if it is none."""
    python, _, machine = name.partition(":")
    if not re.fullmatch(r"3\.\d+", python) or machine not in MACHINES:
        raise SystemExit(
            f"chatlab: {name!r} is not PYTHON:MACHINE, such as 3.12:linux-x86_64; machines: {', '.join(MACHINES)}"
        )
    return Target(python, machine)


def this_machine() -> Target:
    """This Python on this machine."""
    system = {"Linux": "linux", "Darwin": "macos"}.get(platform.system(), platform.system())
    return parse(f"{sys.version_info.major}.{sys.version_info.minor}:{system}-{platform.machine()}")


def selections(target: Target) -> dict[int, list[str]]:
    """The pins by patch release of the target's Python: for a late one, and for the first where that differs."""
    first, late = (select(target.environment(patch)) for patch in (0, LATE_PATCH))
    return {LATE_PATCH: late} if first == late else {LATE_PATCH: late, 0: first}


def select(environment: dict[str, str]) -> list[str]:
    """The lock's pins with their hashes, those that this environment asks for, without markers."""
    chosen = []
    for line in LOCK.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        pin, *hashes = line.partition("#")[0].split(" --hash=")
        if pin and ((requirement := Requirement(pin)).marker is None or requirement.marker.evaluate(environment)):
            chosen.append(" --hash=".join([f"{requirement.name}{requirement.specifier}", *map(str.strip, hashes)]))
    return chosen


def fetch(target: Target, patch: int, pins: list[str]) -> None:
    """Let pip bring these wheels; what is there already is not fetched again."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        subprocess.run([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL, check=True)  # uv makes none
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "pins.txt")
        wanted.write_text("\n".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(WHEELHOUSE)]
        command += [
            "--requirement",
            str(wanted),
            "--implementation",
            "cp",
            "--python-version",
            f"{target.python}.{patch}",
        ]
        for abi in (f"cp{target.python.replace('.', '')}", "abi3", "none"):
            command += ["--abi", abi]
        for tag in MACHINES[target.machine][2]:
            command += ["--platform", tag]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("chatlab: pip could not bring all of it; what it says is above")


if __name__ == "__main__":
    main(sys.argv[1:])
