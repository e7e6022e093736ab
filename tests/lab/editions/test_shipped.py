"""The learner's copy has no outputs and keeps their work; `chatlab reset` restores the notebooks as shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from chatlab.errors import SetupError
from chatlab.lab.editions import shipped
from chatlab.lab.home import home

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


def copied_by_an_older_version(folder: Path) -> None:
    """Keep a copy instead of git, as older versions did."""
    copy = folder.parents[1] / "home" / "shipped"
    shutil.copytree(folder, copy)


both_ways = pytest.mark.parametrize("known", [cloned, copied_by_an_older_version])


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


def test_a_project_inside_another_repository_is_not_a_clone(folder: Path) -> None:
    git(folder.parent, "init", "-q")
    git(folder.parent, "commit", "-q", "--allow-empty", "-m", "Something else")
    with pytest.raises(SetupError, match="the shipped notebooks are not known here"):
        shipped.reset()


# --- The learner's copy ---

OUTPUT = {"output_type": "stream", "name": "stdout", "text": ["b''"]}
LINK = {"cell_type": "markdown", "metadata": {}, "source": ["[latency](../docs/glossary.md#latency)"]}


def notebook(source: str) -> bytes:
    """Return a notebook that has run: with an output and a link to a document."""
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [OUTPUT], "source": [source]}
    content = {"cells": [LINK, cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return f"{json.dumps(content, indent=1)}\n".encode()


def edited(file: Path, source: str) -> None:
    content = json.loads(file.read_bytes())
    content["cells"][1]["source"] = [source]
    file.write_text(json.dumps(content))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone in which the current folder is, with two notebooks that have outputs, and a document."""
    clone = tmp_path / "clone"
    for name, data in {
        "notebooks/00_start_here.ipynb": notebook("start"),
        "notebooks/03_broadcast_handler.ipynb": notebook("room"),
        "notebooks/build.py": b"",
        "docs/glossary.md": b"# Glossary",
        "docs/architecture.md": b"# Architecture",
    }.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(data)
    monkeypatch.chdir(clone)
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    return clone


def test_the_learners_copy_has_the_lessons_without_outputs_and_the_documents_they_link_to(clone: Path) -> None:
    folder = shipped.learners_folder()
    assert folder == clone / "chatlab-lessons"
    copy = shipped.lay_out(folder)
    assert (copy.notebooks, copy.new, copy.outdated) == (folder / "notebooks", True, [])
    assert sorted(file.name for file in copy.notebooks.glob("[!.]*")) == [
        "00_start_here.ipynb",
        "03_broadcast_handler.ipynb",
    ]
    assert [file.name for file in (folder / "docs").iterdir()] == ["glossary.md"]
    cell = json.loads((copy.notebooks / "03_broadcast_handler.ipynb").read_bytes())["cells"][1]
    assert (cell["source"], cell["outputs"], cell["execution_count"]) == (["room"], [], None)
    assert (clone / "notebooks" / "03_broadcast_handler.ipynb").read_bytes() == notebook("room")


def test_a_later_start_keeps_the_learners_work_and_brings_untouched_notebooks_up_to_date(clone: Path) -> None:
    below = shipped.lay_out(clone / "chatlab-lessons").notebooks
    edited(below / "03_broadcast_handler.ipynb", "my answer")
    assert shipped.lay_out(clone / "chatlab-lessons").outdated == []

    for name in ("00_start_here.ipynb", "03_broadcast_handler.ipynb"):
        (clone / "notebooks" / name).write_bytes(notebook("second edition"))
    copy = shipped.lay_out(clone / "chatlab-lessons")
    assert (copy.new, copy.outdated) == (False, ["03_broadcast_handler.ipynb"])
    assert b"second edition" in (below / "00_start_here.ipynb").read_bytes()
    assert b"my answer" in (below / "03_broadcast_handler.ipynb").read_bytes()


def test_a_notebook_that_the_learner_brought_up_to_date_by_hand_is_not_outdated(clone: Path) -> None:
    below = shipped.lay_out(clone / "chatlab-lessons").notebooks
    (clone / "notebooks" / "03_broadcast_handler.ipynb").write_bytes(notebook("second edition"))
    (below / "03_broadcast_handler.ipynb").write_bytes(shipped.stripped(notebook("second edition")))
    assert shipped.lay_out(clone / "chatlab-lessons").outdated == []


def test_without_its_record_a_copy_is_taken_for_work_on_the_version_of_today(clone: Path) -> None:
    below = shipped.lay_out(clone / "chatlab-lessons").notebooks
    edited(below / "03_broadcast_handler.ipynb", "my answer")
    (below / shipped.RECORD).unlink()
    assert shipped.lay_out(clone / "chatlab-lessons").outdated == []
    (clone / "notebooks" / "03_broadcast_handler.ipynb").write_bytes(notebook("second edition"))
    assert shipped.lay_out(clone / "chatlab-lessons").outdated == ["03_broadcast_handler.ipynb"]
    assert b"my answer" in (below / "03_broadcast_handler.ipynb").read_bytes()


def test_everything_uses_the_learners_copy_from_the_clone_and_from_inside_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clone / "chatlab-lessons"
    shipped.lay_out(folder)
    for current in (clone, folder, folder / "notebooks"):
        monkeypatch.chdir(current)
        assert shipped.notebooks() == folder / "notebooks"
        assert shipped.sources() == clone / "notebooks"
        assert shipped.learners_folder() == folder
        assert home() == folder / ".chatlab"


def test_a_reset_of_the_copy_restores_it_without_outputs_and_sets_the_answers_aside(clone: Path) -> None:
    file = shipped.lay_out(clone / "chatlab-lessons").notebooks / "03_broadcast_handler.ipynb"
    as_shipped = file.read_bytes()
    edited(file, "my answer")
    assert shipped.changed() == [file.name]
    done = shipped.reset(["03"])
    assert file.read_bytes() == as_shipped
    assert b"my answer" in (done.aside / file.name).read_bytes()


def test_a_notebook_that_was_only_run_counts_as_shipped(clone: Path) -> None:
    file = shipped.lay_out(clone / "chatlab-lessons").notebooks / "03_broadcast_handler.ipynb"
    file.write_bytes(notebook("room"))  # JupyterLab has saved its outputs
    assert shipped.changed() == []


def test_progress_from_before_there_was_a_copy_is_taken_along(clone: Path) -> None:
    (clone / ".chatlab" / "progress").mkdir(parents=True)
    (clone / ".chatlab" / "progress" / "03.1.json").write_text("{}")
    folder = clone / "chatlab-lessons"
    shipped.lay_out(folder)
    assert (folder / ".chatlab" / "progress" / "03.1.json").exists()


def test_later_progress_is_never_replaced_by_that_from_before(clone: Path) -> None:
    folder = clone / "chatlab-lessons"
    for place, mark in ((clone, "{}"), (folder, '{"mark": "right"}')):
        (place / ".chatlab" / "progress").mkdir(parents=True)
        (place / ".chatlab" / "progress" / "03.1.json").write_text(mark)
    shipped.lay_out(folder)
    assert (folder / ".chatlab" / "progress" / "03.1.json").read_text() == '{"mark": "right"}'


# --- An installed package contains the notebooks ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder; the installed package contains two notebooks."""
    packaged = tmp_path / "site-packages" / "notebooks"
    packaged.mkdir(parents=True)
    for name in SHIPPED:
        (packaged / name).write_bytes(notebook(name))
    monkeypatch.setattr(shipped, "PACKAGED", packaged)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    return empty


def test_a_packages_notebooks_are_copied_to_the_current_folder_and_answers_are_kept(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shipped.learners_folder()
    assert folder == installed / "chatlab-lessons"
    below = shipped.lay_out(folder).notebooks
    edited(below / "03_broadcast_handler.ipynb", "my answer")
    shipped.lay_out(folder)
    assert b"my answer" in (below / "03_broadcast_handler.ipynb").read_bytes()

    monkeypatch.chdir(folder)
    assert shipped.changed() == ["03_broadcast_handler.ipynb"]
    done = shipped.reset()
    assert b"my answer" not in (below / "03_broadcast_handler.ipynb").read_bytes()
    assert done.aside.is_relative_to(folder / ".chatlab")


def test_the_error_for_an_unwritable_folder_names_the_option(installed: Path) -> None:
    (installed / "file").write_text("")
    with pytest.raises(SetupError, match="--to FOLDER"):
        shipped.lay_out(installed / "file")


def test_the_wheel_contains_every_notebook_and_the_documents() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    notebooks = {f"notebooks/{name}": f"chatlab/lab/editions/notebooks/{name}" for name in names}
    assert included == {**notebooks, "docs": "chatlab/lab/editions/docs"}
