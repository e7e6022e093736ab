"""Kafka's jars are kept in the user's cache, and nothing is downloaded unless requested."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatlab.errors import SetupError
from chatlab.lab.engines import kafka_jars
from chatlab.lab.engines import kinds as engine_kinds


def test_the_jars_are_kept_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kafka_jars.folder() == tmp_path / "chatlab" / f"kafka-{kafka_jars.VERSION}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert kafka_jars.folder().parts[-3:-1] == (".cache", "chatlab")


def test_existing_jars_are_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # no Maven
    kafka_jars.folder().mkdir(parents=True)
    assert kafka_jars.fetch() == kafka_jars.folder()


def test_without_maven_the_error_names_an_alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match=r"no Maven here .*`docker compose"):
        kafka_jars.fetch()


def test_a_failed_download_shows_mavens_output_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho 'no such repository'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SetupError, match="no such repository"):
        kafka_jars.fetch()
    assert list((tmp_path / "chatlab").iterdir()) == []


@pytest.mark.parametrize(
    ("output", "version"), [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_4"', 1)]
)
def test_the_version_of_java_is_read_from_its_output(
    output: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert engine_kinds.java_version() == version
    java.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engine_kinds.java_version() == 0
