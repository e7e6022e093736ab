"""The folder in which chatlab keeps a learner's own data."""

from pathlib import Path

import pytest

from chatlab.lab.home import home


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"
    assert home().is_dir()


def test_the_folder_is_beside_the_notebooks_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start_here.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert home() == tmp_path / ".chatlab"


def test_without_notebooks_the_folder_is_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / ".chatlab"


def test_the_learners_copy_comes_before_the_notebooks_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    for folder in (tmp_path, tmp_path / "chatlab-lessons"):
        (folder / "notebooks").mkdir(parents=True)
        (folder / "notebooks" / "00_start_here.ipynb").touch()
    for current in (tmp_path, tmp_path / "notebooks", tmp_path / "chatlab-lessons" / "notebooks"):
        monkeypatch.chdir(current)
        assert home() == tmp_path / "chatlab-lessons" / ".chatlab"
