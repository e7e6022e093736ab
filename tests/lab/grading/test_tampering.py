"""A seal finds what was replaced, and says nothing where nothing was."""

import pytest

from chatlab.lab.exercises import exercise
from chatlab.lab.exercises.lessons import lesson01
from chatlab.lab.grading.tampering import Seal


def test_functions_methods_code_and_cases_are_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = Seal()
    assert seal.broken() is None
    with monkeypatch.context() as patch:
        patch.setattr(lesson01, "proof", len)
        assert seal.broken() == "chatlab.lab.exercises.lessons.lesson01.proof"
    with monkeypatch.context() as patch:
        patch.setattr(exercise.NotYet, "__init__", lambda self: None)
        assert seal.broken() == "chatlab.lab.exercises.exercise.NotYet.__init__"
    with monkeypatch.context() as patch:
        patch.setattr(lesson01.check_judge, "__code__", (lambda answer: None).__code__)
        assert seal.broken() == "chatlab.lab.exercises.lessons.lesson01.check_judge"
    with monkeypatch.context() as patch:
        patch.setattr(lesson01, "CASES", [])
        assert seal.broken() == "chatlab.lab.exercises.lessons.lesson01.CASES"
    assert seal.broken() is None
