"""The load generators are in the user's cache, and the error for missing ones names the command that fetches them."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatlab.errors import EngineMissing
from chatlab.lab.engines import kinds, load_tools


def test_missing_load_generators_are_reported_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EngineMissing, match=r"`python\S* -m chatlab\.lab\.engines\.load_tools`"):
        load_tools.java(load_tools.KAFKA)


@pytest.mark.skipif(kinds.java_version() < load_tools.OLDEST_JAVA, reason="there is no Java to run them")
def test_load_generators_in_the_cache_are_run_with_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_tools.folder().mkdir(parents=True)
    assert load_tools.java("a.Program") == ["java", "-Xmx256m", "-cp", f"{load_tools.folder()}/*", "a.Program"]


def test_without_java_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    load_tools.folder().mkdir(parents=True)
    with pytest.raises(EngineMissing, match="no Java 17"):
        load_tools.java(load_tools.RABBITMQ)


def test_a_missing_redis_benchmark_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineMissing, match="no redis-benchmark here"):
        load_tools.redis_benchmark()
