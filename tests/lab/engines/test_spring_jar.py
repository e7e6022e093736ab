"""The article's programs are built with Maven on request, and what the build needs is named where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatlab.errors import EngineMissing, SetupError
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import spring_jar
from chatlab.lab.engines.kinds import KINDS, spring_recipe


def fake_maven(folder: Path, output: str) -> str:
    """Write an `mvn` that fails with this output, and a `javac`; return a PATH with them."""
    for name, script in (("mvn", f"cat <<'END'\n{output}\nEND\nexit 1"), ("javac", "exit 0")):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return f"{folder}:/bin:/usr/bin"


def test_without_maven_the_error_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match=r"needs a JDK, version 17 or newer, and Maven; `.+maven`"):
        spring_jar.build()


def test_a_repository_out_of_reach_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "[ERROR] Non-resolvable import POM: Could not transfer artifact x:pom:1 from/to central: Connection refused"
    monkeypatch.setenv("PATH", fake_maven(tmp_path, said))
    with pytest.raises(SetupError, match=r"Maven cannot reach its repository: .*Connection refused; connect to"):
        spring_jar.build()


def test_a_failed_build_shows_mavens_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake_maven(tmp_path, "[INFO] no\n[ERROR] COMPILATION ERROR : no such class\n[ERROR] x"))
    with pytest.raises(SetupError, match="Maven could not build the article's programs: COMPILATION ERROR : no such"):
        spring_jar.build()


def test_without_the_sources_the_error_names_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spring_jar, "SOURCES", tmp_path)
    with pytest.raises(SetupError, match="clone the repository"):
        spring_jar.build()


def test_programs_that_are_not_built_are_reported_with_the_command_that_builds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATLAB_SPRING_JAR", str(tmp_path / "none.jar"))
    with pytest.raises(EngineMissing, match=r"no spring here; .*`make spring`"):
        engines.find("spring")


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"profile": "three"}, "no profile 'three'; there are raw, decorated, one, two, fixed"),
        ({"profile": "two"}, "needs a Redis; name it in the option redis"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], reported: str, tmp_path: Path) -> None:
    found = engines.Found("spring", "", "", tmp_path)
    with pytest.raises(SetupError, match=reported):
        spring_recipe(found, tmp_path, options)


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not here")
async def test_a_program_that_ends_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jar"
    broken.write_bytes(b"no jar")
    found = engines.Found("spring", "", "", broken)
    with pytest.raises(engines.EngineDied, match=r"spring ended with status 1: .*(jarfile|manifest)"):
        await engines.start_in(tmp_path, found, KINDS["spring"].recipe, {"profile": "raw"}, private=False)
