"""The rehearsal for a class: each check runs for real, and a failed one says what to do."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from chatlab.lab.doctor import workshop

ROOT = Path(__file__).parents[3]


def test_too_little_memory_or_too_few_cores_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "MEMORY", 1 << 60)
    monkeypatch.setattr(workshop, "CORES", 1 << 20)
    for check in (workshop.memory(), workshop.cores()):
        assert not check.well
        assert "share a laptop" in check.remedy


def test_changed_notebooks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, text in (("notebooks", "my answers"), ("home/shipped", "as shipped")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "00_start_here.ipynb").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    check = workshop.notebooks()
    assert (check.well, check.found) == (False, "changed: 00_start_here.ipynb")
    assert "chatlab reset" in check.remedy
    (tmp_path / "notebooks" / "00_start_here.ipynb").write_text("as shipped")
    assert workshop.notebooks().well


# The wheelhouse.


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose lock wants one package, with its wheel for any machine in the wheelhouse."""
    for folder in ("tools", "requirements", "wheelhouse"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tools" / "wheelhouse.py").write_bytes((ROOT / "tools" / "wheelhouse.py").read_bytes())
    (tmp_path / "wheelhouse" / "chat-1.0-py3-none-any.whl").write_bytes(b"chat")
    pin = f"chat==1.0 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{hashlib.sha256(b'chat').hexdigest()}\n"
    (tmp_path / "requirements" / "lab.txt").write_text(
        pin + 'other==2 ; sys_platform == "win96" \\\n    --hash=sha256:1\n'
    )
    return tmp_path


def test_a_wheelhouse_with_every_locked_package_is_complete(clone: Path) -> None:
    check = workshop.wheelhouse(clone)
    assert (check.well, check.found) == (True, "complete for machines like this one")


def test_missing_damaged_and_foreign_wheels_are_named(clone: Path) -> None:
    wheel = clone / "wheelhouse" / "chat-1.0-py3-none-any.whl"
    wheel.write_bytes(b"cut short")
    assert workshop.wheelhouse(clone).found == "lacks chat==1.0"
    wheel.unlink()
    assert workshop.wheelhouse(clone).found == "lacks chat==1.0"
    (clone / "wheelhouse" / "chat-1.0-cp311-cp311-win_amd64.whl").write_bytes(b"chat")
    check = workshop.wheelhouse(clone)
    assert (check.found, check.sign) == ("lacks chat==1.0", "✘")
    assert "make wheelhouse" in check.remedy


def test_a_missing_wheelhouse_is_not_needed(tmp_path: Path) -> None:
    check = workshop.wheelhouse(tmp_path)
    assert check.sign == "○"
    assert "make wheelhouse" in check.remedy


# The room.


async def test_every_member_of_a_full_room_receives_every_message() -> None:
    check = await workshop.full_room(12, port=0)
    assert check.name == "a room for 12"
    assert "all received all within" in check.found


async def test_a_taken_room_port_is_reported_with_a_remedy() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        check = await workshop.full_room(2, port=port)
    assert (check.well, check.found) == (False, f"port {port} is taken")
    assert "--port" in check.remedy


async def test_a_slow_room_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "SECONDS_TO_RECEIVE", 0.0)
    check = await workshop.full_room(2, port=0)
    assert not check.well
    assert "busy" in check.remedy


def test_a_machine_without_a_network_gets_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlab.classroom.lan_address", lambda: "127.0.0.1")
    check = workshop.address()
    assert not check.well
    assert "hotspot" in check.remedy


# JupyterLab's files.

SETTINGS = '{"fullLabextensionsUrl": "/ext", "federated_extensions": [{"name": "@a/b", "load": "static/entry.js"}]}'


@pytest.fixture
async def page() -> AsyncIterator[dict[str, str]]:
    """A page at /lab to be written by the test, in a server that has /main.js and /ext/@a/b/static/entry.js."""
    text = {"lab": "", "url": ""}

    async def lab(_: web.Request) -> web.Response:
        return web.Response(text=text["lab"], content_type="text/html")

    async def script(_: web.Request) -> web.Response:
        return web.Response(text="", content_type="text/javascript")

    application = web.Application()
    application.router.add_get("/lab", lab)
    for path in ("/main.js", "/ext/@a/b/static/entry.js"):
        application.router.add_get(path, script)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    text["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield text
    await runner.cleanup()


async def test_a_page_with_only_local_files_passes_the_check(page: dict[str, str]) -> None:
    page["lab"] = f'<script id="jupyter-config-data">{SETTINGS}</script><script src="/main.js"></script>'
    check = await workshop.assets(page["url"], "")
    assert (check.well, check.found) == (True, "2 scripts and styles, all local")


@pytest.mark.parametrize("wanted", ["https://cdn.example/require.js", "/gone.js"])
async def test_remote_and_missing_files_are_named(page: dict[str, str], wanted: str) -> None:
    page["lab"] = f'<script id="jupyter-config-data">{SETTINGS}</script><script src="{wanted}"></script>'
    check = await workshop.assets(page["url"], "")
    assert not check.well
    assert wanted in check.found
    assert check.remedy
