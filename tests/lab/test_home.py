"""Where chatlab keeps what is a learner's own."""

from pathlib import Path

import pytest

from chatlab.lab.home import home


def test_the_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"
    assert home().is_dir()


def test_it_is_beside_the_notebooks_one_works_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start_here.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert home() == tmp_path / ".chatlab"


def test_elsewhere_it_is_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATLAB_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / ".chatlab"
