"""Submissions: learners, lessons and problems, from folders and zips."""

import zipfile
from pathlib import Path

import pytest

from chatlab.errors import SetupError
from chatlab.lab.grading.submissions import submissions
from tests.lab.grading.handed_in import hand_in, notebook

ONE = notebook("01")


def learners(place: Path) -> list[tuple[str, str, str]]:
    return [(each.learner, each.id, each.lesson) for each in submissions(place)]


def test_learners_are_named_by_their_folders_or_by_what_a_file_is_called_besides_the_lesson(tmp_path: Path) -> None:
    hand_in(tmp_path, "가람/week 1/01_handshake.ipynb", ONE)
    hand_in(tmp_path, "01_handshake-nuri.ipynb", ONE)
    hand_in(tmp_path, "하늘/.ipynb_checkpoints/01_handshake-checkpoint.ipynb", ONE)
    assert learners(tmp_path) == [("nuri", "", "01"), ("가람", "", "01")]


def test_the_ids_that_canvas_and_moodle_put_into_names_are_taken_out(tmp_path: Path) -> None:
    hand_in(tmp_path, "kimgaram_LATE_4711_90210_01_handshake-1.ipynb", ONE)
    hand_in(tmp_path, "Nuri Lee_815_assignsubmission_file/01_handshake.ipynb", ONE)
    assert learners(tmp_path) == [("kimgaram", "4711", "01"), ("Nuri Lee", "", "01")]


def test_a_zip_of_a_folder_is_read_like_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "class.zip"
    with zipfile.ZipFile(file, "w") as made:
        for name in ("inbox/garam/01_handshake.ipynb", "inbox/nuri/01_handshake.ipynb", "__MACOSX/inbox/x.ipynb"):
            made.writestr(name, ONE)
    assert [learner for learner, __, __ in learners(file)] == ["garam", "nuri"]


def test_what_is_no_notebook_of_this_course_is_one_problem(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.ipynb", "not\njson")
    hand_in(tmp_path, "b.ipynb", '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    hand_in(tmp_path, "c_00_start_here.ipynb", notebook("00"))
    first, second, third = (each.problem for each in submissions(tmp_path))
    assert first.startswith("this is not a notebook: ")
    assert second == "this notebook has no exercise of this course"
    assert third == "lesson 00 has no exercises"


def test_an_empty_folder_a_missing_one_and_a_file_that_is_no_zip_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for place, expected in (
        (tmp_path, "no notebook in"),
        (tmp_path / "x", "there is no"),
        (tmp_path / "notes.txt", "nor"),
    ):
        with pytest.raises(SetupError, match=expected):
            submissions(place)


def test_a_notebook_whose_tags_are_gone_is_known_by_its_checks(tmp_path: Path) -> None:
    hand_in(tmp_path, "nuri.ipynb", ONE.replace('"exercise-', '"was-'))
    (found,) = submissions(tmp_path)
    assert found.lesson == "01"
    assert ("01.1",) in [cell.exercises for cell in found.cells]
