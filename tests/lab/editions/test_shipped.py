"""`chatlab reset` restores the notebooks as they were shipped, and keeps the learner's work."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chatlab.errors import SetupError
from chatlab.lab.editions import shipped

ROOT = Path(__file__).parents[3]
SHIPPED = {"00_start_here.ipynb": '{"cells": []}\n', "03_broadcast_handler.ipynb": '{"cells": [1]}\n'}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's working folder with two notebooks."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    for name, text in SHIPPED.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A Learner", "-c", "user.email=learner@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def cloned(folder: Path) -> None:
    """Make the project a clone of an upstream repository."""
    project, upstream = folder.parent, folder.parent.with_name("upstream")
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "notebooks")
    git(project, "commit", "-qm", "Ship the notebooks")
    git(project, "clone", "-q", "--bare", ".", str(upstream))
    git(project, "remote", "add", "origin", str(upstream))
    git(project, "fetch", "-q", "origin")
    git(project, "branch", "-q", "--set-upstream-to", "origin/main")


def remembered(_: Path) -> None:
    """Keep a copy instead of git, as when the workbook is first opened."""
    shipped.remember()


both_ways = pytest.mark.parametrize("known", [cloned, remembered])


@both_ways
def test_a_changed_notebook_is_restored_and_the_learners_copy_kept(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    (folder / "03_broadcast_handler.ipynb").write_text("my answers")
    done = shipped.reset()
    assert done.restored == ["03_broadcast_handler.ipynb"]
    assert (folder / "03_broadcast_handler.ipynb").read_text() == SHIPPED["03_broadcast_handler.ipynb"]
    assert (done.aside / "03_broadcast_handler.ipynb").read_text() == "my answers"


@both_ways
def test_a_deleted_notebook_is_restored(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    (folder / "00_start_here.ipynb").rename(folder / "renamed.ipynb")
    (folder / "00_start_here.ipynb").write_text("")  # this name identifies the folder
    (folder / "03_broadcast_handler.ipynb").unlink()
    shipped.reset()
    assert {name: (folder / name).read_text() for name in SHIPPED} == SHIPPED


@both_ways
def test_changed_lists_changed_and_deleted_notebooks(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    assert shipped.changed() == []
    (folder / "00_start_here.ipynb").write_text("my answers")
    (folder / "03_broadcast_handler.ipynb").unlink()
    (folder / "scratch.ipynb").write_text("mine")
    assert shipped.changed() == ["00_start_here.ipynb", "03_broadcast_handler.ipynb"]


@both_ways
def test_a_reset_keeps_the_record_of_solved_exercises(
    folder: Path, tmp_path: Path, known: Callable[[Path], None]
) -> None:
    known(folder)
    solved = tmp_path / "home" / "progress" / "03.1.json"
    solved.parent.mkdir(parents=True)
    solved.write_text('{"mark": "right"}')
    (folder / "03_broadcast_handler.ipynb").write_text("my answers")
    shipped.reset()
    assert solved.read_text() == '{"mark": "right"}'


@both_ways
def test_a_second_reset_keeps_the_files_of_the_first(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    kept = []
    for text in ("my answers", "my second answers"):
        (folder / "03_broadcast_handler.ipynb").write_text(text)
        kept.append(shipped.reset().aside / "03_broadcast_handler.ipynb")
    assert [file.read_text() for file in kept] == ["my answers", "my second answers"]


@both_ways
def test_a_reset_keeps_other_files_of_the_learner(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    (folder / "scratch.ipynb").write_text("mine")
    assert shipped.reset().restored == []
    assert (folder / "scratch.ipynb").read_text() == "mine"


@both_ways
def test_one_lesson_can_be_reset_alone(folder: Path, known: Callable[[Path], None]) -> None:
    known(folder)
    for name in SHIPPED:
        (folder / name).write_text("changed")
    assert shipped.reset(["03"]).restored == ["03_broadcast_handler.ipynb"]
    assert (folder / "00_start_here.ipynb").read_text() == "changed"


def test_an_unknown_lesson_is_refused_with_the_list_of_notebooks(folder: Path) -> None:
    cloned(folder)
    with pytest.raises(SetupError, match=r"no notebook begins with '99'; there are 00_start_here\.ipynb, 03_"):
        shipped.reset(["99"])


def test_a_learners_commit_does_not_count_as_shipped(folder: Path) -> None:
    cloned(folder)
    (folder / "00_start_here.ipynb").write_text("my answers")
    git(folder, "commit", "-qam", "Answer the exercises")
    assert shipped.reset().restored == ["00_start_here.ipynb"]
    assert (folder / "00_start_here.ipynb").read_text() == SHIPPED["00_start_here.ipynb"]


def test_without_git_the_copy_is_made_once(folder: Path, tmp_path: Path) -> None:
    shipped.remember()
    (folder / "00_start_here.ipynb").write_text("my answers")
    shipped.remember()
    assert (tmp_path / "home" / "shipped" / "00_start_here.ipynb").read_text() == SHIPPED["00_start_here.ipynb"]


def test_in_a_clone_no_copy_is_made(folder: Path, tmp_path: Path) -> None:
    cloned(folder)
    shipped.remember()
    assert not (tmp_path / "home" / "shipped").exists()


def test_a_project_inside_another_repository_is_not_a_clone(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    git(folder.parent, "commit", "-q", "--allow-empty", "-m", "Something else")
    with pytest.raises(SetupError, match="the shipped notebooks are not known here"):
        shipped.reset()


# --- An installed package contains the notebooks ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder; the installed package contains two notebooks."""
    packaged = tmp_path / "site-packages" / "notebooks"
    packaged.mkdir(parents=True)
    for name, text in SHIPPED.items():
        (packaged / name).write_text(text)
    monkeypatch.setattr(shipped, "PACKAGED", packaged)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    return empty


def test_a_packages_notebooks_are_copied_once_and_a_learners_answers_are_kept(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shipped.lay_out(installed / "lessons")
    assert {file.name: file.read_text() for file in folder.iterdir()} == SHIPPED
    (folder / "03_broadcast_handler.ipynb").write_text("my answers")
    shipped.lay_out(installed / "lessons")
    assert (folder / "03_broadcast_handler.ipynb").read_text() == "my answers"

    monkeypatch.chdir(installed / "lessons")
    assert shipped.changed() == ["03_broadcast_handler.ipynb"]
    done = shipped.reset()
    assert (folder / "03_broadcast_handler.ipynb").read_text() == SHIPPED["03_broadcast_handler.ipynb"]
    assert done.aside.is_relative_to(installed / "lessons" / ".chatlab")


def test_the_error_for_an_unwritable_folder_names_the_option(installed: Path) -> None:
    (installed / "file").write_text("")
    with pytest.raises(SetupError, match="--to FOLDER"):
        shipped.lay_out(installed / "file")


def test_the_wheel_contains_every_notebook() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert included == {f"notebooks/{name}": f"chatlab/lab/editions/notebooks/{name}" for name in names}
