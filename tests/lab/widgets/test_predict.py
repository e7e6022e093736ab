"""Predictions: every question is complete, and answering it shows the reasons."""

from importlib.resources import files

import pytest

from chatlab.lab.widgets.predict import Option, Prediction, Question, predict, questions

LESSONS = sorted(
    f.name[:2] for f in (files("chatlab.lab.widgets") / "predictions").iterdir() if f.name.endswith(".toml")
)
QUESTION = Question("01", "k", "1 < 2?", (Option("yes", "so it is", True), Option("<b>no</b>", "count again")))


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_question_has_options_with_reasons_and_exactly_one_right(lesson: str) -> None:
    for question in questions(lesson).values():
        assert 2 <= len(question.options) <= 5, question.key
        assert sum(option.right for option in question.options) == 1, question.key
        assert all(option.why for option in question.options), question.key
        assert len({option.text for option in question.options}) == len(question.options), question.key


def test_nothing_is_revealed_before_a_choice() -> None:
    assert Prediction(QUESTION).answer.value == ""


def test_a_right_choice_is_confirmed_and_all_reasons_are_shown() -> None:
    prediction = Prediction(QUESTION)
    prediction.buttons[0].click()
    assert "✔ You expected it." in prediction.answer.value
    assert "count again" in prediction.answer.value


def test_a_wrong_choice_is_explained_and_markup_is_escaped() -> None:
    prediction = Prediction(QUESTION)
    prediction.buttons[1].click()
    assert "✘ Not this time." in prediction.answer.value
    assert "&lt;b&gt;no&lt;/b&gt;</b> (your choice)" in prediction.answer.value


def test_the_plain_text_has_the_question_without_the_answer() -> None:
    assert repr(Prediction(QUESTION)) == "Before you run the next cell. 1 < 2?\n  a) yes\n  b) <b>no</b>"


def test_a_lesson_without_predictions_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match="99"):
        predict("99", "x")
