"""The doctor tells what is here from what is missing, and names the command that brings it."""

from __future__ import annotations

import asyncio
import json
import platform
import socket
import sys
from importlib import metadata
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from chatlab.lab.doctor import checks as doctor
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import kinds as engine_kinds
from chatlab.lab.engines.engine import Engine
from tests.support.older_redis import redis_6_0, relayed


@pytest.fixture(scope="module")
def checks() -> dict[str, doctor.Check]:
    return {check.name: check for check in asyncio.run(doctor.examine())}


def test_every_required_package_is_checked(checks: dict[str, doctor.Check]) -> None:
    assert {"Python", "websockets", "redis", "jupyterlab", "ipykernel", "ipywidgets", "Redis or Valkey"} <= set(checks)
    assert checks["Python"].found.startswith(platform.python_version())
    assert checks["websockets"] == doctor.Check("websockets", True, metadata.version("websockets"))


def test_only_failed_checks_have_a_remedy(checks: dict[str, doctor.Check]) -> None:
    for check in checks.values():
        assert bool(check.remedy) is not check.well, check


def test_widgets_are_live_here(checks: dict[str, doctor.Check]) -> None:
    found = f"ipykernel {metadata.version('ipykernel')}, JupyterLab {metadata.version('jupyterlab')}, extension there"
    assert checks["widgets are live"] == doctor.Check("widgets are live", True, found)


def test_an_old_ipykernel_leaves_buttons_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"ipykernel": "7.3.1", "jupyterlab": "4.6.0"}
    monkeypatch.setattr(doctor, "version_of", versions.get)
    check = doctor.widgets()
    assert not check.well
    assert check.found.startswith("ipykernel 7.3.1, JupyterLab 4.6.0")
    assert check.remedy


@pytest.mark.parametrize("version", ["7.4", "7.4.0", "7.10", "8.0.0rc1", "10.0"])
def test_versions_compare_by_number(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(doctor, "version_of", {"ipykernel": version, "jupyterlab": "4.6.0"}.get)
    assert doctor.widgets().well


def test_an_old_or_missing_package_is_reported_with_the_required_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", {"websockets": "12.0"}.get)
    checks = {check.name: check for check in doctor.packages()}
    assert checks["websockets"].found.startswith("12.0, wanted ")
    assert checks["redis"].found.startswith("not installed, wanted ")
    assert checks["redis"].remedy == doctor.bring_the_lab()


def test_a_kernel_of_another_python_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/opt/elsewhere/bin/python"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    check = doctor.kernel()
    assert (check.well, check.found) == (False, "/opt/elsewhere/bin/python")
    assert check.remedy == "`python -m ipykernel install --sys-prefix`"


async def test_a_missing_redis_stops_the_lessons_and_a_missing_kafka_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # Where no engine is started from a program; the libraries go on seeing the platform that it is.
    monkeypatch.setattr(engine_kinds, "sys", SimpleNamespace(platform="win32", executable=sys.executable))
    for name in ("REDIS_URL", "AMQP_URL", "KAFKA_URL"):
        monkeypatch.delenv(name, raising=False)
    redis, kafka = await doctor.engine("redis", "Redis or Valkey"), await doctor.engine("kafka", "Kafka")
    assert (redis.sign, kafka.sign) == ("✘", "○")
    assert "REDIS_URL" in redis.remedy
    assert redis.remedy not in redis.found


async def test_a_redis_that_does_not_answer_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("REDIS_URL", f"redis://:secret@127.0.0.1:{closed.getsockname()[1]}")
        check = await doctor.engine("redis", "Redis or Valkey")
    assert not check.well
    assert "nothing answers at redis://:***@127.0.0.1" in check.found
    assert check.remedy


async def test_a_redis_that_is_too_old_is_named_with_its_version(
    redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relayed(redis_engine.url, redis_6_0) as url:
        monkeypatch.setenv("REDIS_URL", url)
        check = await doctor.engine("redis", "Redis or Valkey")
    assert check.sign == "✘"
    assert "Redis 6.0.16 is too old: Redis 6.2 or newer is required" in check.found
    assert "update that server" in check.remedy


@pytest.mark.parametrize("server", ["redis://h?typo=1", "redis://h:99999", "redis://h:port", "redis://no-such.invalid"])
async def test_an_invalid_redis_url_fails_the_check(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", server)
    check = await doctor.engine("redis", "Redis or Valkey")
    assert check.sign == "✘"
    assert check.remedy


async def test_the_check_of_redis_reports_what_a_crash_may_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    ours = await doctor.engine("redis", "Redis or Valkey")
    assert "a crash of the broker may lose the last second or two" in ours.found
    async with await engines.start("redis", options={"appendonly": "no"}) as engine:
        monkeypatch.setenv("REDIS_URL", engine.url)
        named = await doctor.engine("redis", "Redis or Valkey")
    assert named.well
    assert named.found.startswith(f"{engine.version}, REDIS_URL names it; a crash of the broker loses every message")


@pytest.mark.parametrize("kind", ["rabbitmq", "kafka"])
def test_no_word_of_a_command_is_cut_in_a_terminal_of_80_columns(kind: str) -> None:
    remedy = engine_kinds.KINDS[kind].remedy()
    console = Console(file=StringIO(), width=80)
    console.print(doctor.as_table([doctor.Check("an engine", False, "no such engine here", remedy)]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    assert "…" not in shown
    assert remedy.split() == shown.partition("an engine: ")[2].split()


def test_missing_load_generators_are_shown_with_their_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check = doctor.load_generators()
    assert (check.well, check.needed) == (False, False)
    assert "-m chatlab.lab.engines.load_tools" in check.remedy


def test_the_table_and_the_json_say_the_same() -> None:
    checks = [
        doctor.Check("Python", True, "3.11.7"),
        doctor.Check("ipykernel", False, "7.1.0", "`make lab`"),
        doctor.Check("Kafka", False, "no kafka here", "`docker compose up -d kafka`", needed=False),
    ]
    console = Console(file=StringIO(), width=100)
    console.print(doctor.as_table(checks))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO from above
    assert [line[0] for line in lines[1:4]] == ["✔", "✘", "○"]
    assert lines[2].split() == ["✘", "ipykernel", "7.1.0"]
    assert lines[4:] == ["what to do", "✘ ipykernel: `make lab`", "○ Kafka: `docker compose up -d kafka`"]
    assert json.loads(doctor.as_json(checks))[2] == {
        "name": "Kafka",
        "well": False,
        "found": "no kafka here",
        "remedy": "`docker compose up -d kafka`",
        "needed": False,
    }
