"""Programs in Java are fetched whole or not at all, and only once."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatlab.errors import SetupError
from chatlab.lab.engines import maven


def put_maven_on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "mvn"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert maven.fetch("a program", "<project/>", tmp_path, "install maven") == tmp_path


def test_without_maven_the_error_has_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="no Maven here to fetch a program with; install it"):
        maven.fetch("a program", "<project/>", tmp_path / "jars", "install it")


def test_a_failed_download_shows_mavens_output_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_maven_on_path(tmp_path, "echo 'no such repository'; exit 1", monkeypatch)
    with pytest.raises(SetupError, match="no such repository"):
        maven.fetch("a program", "<project/>", tmp_path / "cache" / "jars", "")
    assert list((tmp_path / "cache").iterdir()) == []


def test_maven_is_run_on_the_pom_and_its_jars_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_maven_on_path(tmp_path, "mkdir jars; cp pom.xml jars/one.jar", monkeypatch)
    jars = maven.fetch("a program", "<project/>", tmp_path / "cache" / "jars", "")
    assert (jars / "one.jar").read_text() == "<project/>"
    assert list((tmp_path / "cache").iterdir()) == [jars]
