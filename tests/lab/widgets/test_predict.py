"""Predictions: every question is complete, and answering it shows the reasons."""

from importlib.resources import files
from pathlib import Path

import pytest

from chatlab.lab.claims import FIGURES
from chatlab.lab.widgets.predict import (
    Option,
    Prediction,
    Question,
    Questionnaire,
    predict,
    questionnaire,
    questions,
)

LESSONS = sorted(
    f.name[:2] for f in (files("chatlab.lab.widgets") / "predictions").iterdir() if f.name.endswith(".toml")
)
QUESTION = Question("01", "k", "1 < 2?", (Option("yes", "so it is", True), Option("<b>no</b>", "count again")))
OTHER = Question("01", "other", "2 < 1?", (Option("yes.", "count again."), Option("no.", "so it is not.", True)))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


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
    assert "&lt;b&gt;no&lt;/b&gt;</b> (your choice)<br>count again</li>" in prediction.answer.value


def test_the_plain_text_has_the_question_without_the_answer() -> None:
    assert repr(Prediction(QUESTION)) == "Before you run the next cell. 1 < 2?\n  a) yes\n  b) <b>no</b>"


def test_a_lesson_without_predictions_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match="99"):
        predict("99", "x")


def test_each_reason_is_a_sentence_on_a_line_of_its_own() -> None:
    prediction = Prediction(OTHER)
    prediction.buttons[0].click()
    assert "✘ a) <b>yes.</b> (your choice)<br>count again.</li>" in prediction.answer.value
    assert ".:" not in prediction.answer.value + prediction._repr_html_()


# A choice is kept.


def test_a_choice_is_locked_and_shown_again_the_next_day() -> None:
    Prediction(QUESTION).buttons[1].click()
    tomorrow = Prediction(QUESTION)
    assert tomorrow.chosen == 1
    assert all(button.disabled for button in tomorrow.buttons)
    assert "✘ Not this time." in tomorrow.answer.value
    tomorrow.buttons[0].click()
    assert Prediction(QUESTION).chosen == 1


def test_answer_again_clears_the_choice() -> None:
    prediction = Prediction(QUESTION)
    assert prediction.again.layout.display == "none"
    prediction.buttons[1].click()
    assert prediction.again.layout.display != "none"
    prediction.again.click()
    assert Prediction(QUESTION).chosen is None
    assert prediction.answer.value == ""
    prediction.buttons[0].click()
    assert "✔ You expected it." in prediction.answer.value


def test_a_choice_whose_option_was_reworded_or_whose_file_is_broken_counts_as_none(own_home: Path) -> None:
    Prediction(QUESTION).buttons[0].click()
    assert Prediction(Question("01", "k", "1 < 2?", (Option("yes!", "", True), Option("no", "")))).chosen is None
    (own_home / "predictions" / "01.k.json").write_text("{")
    assert Prediction(QUESTION).chosen is None


def test_without_a_kernel_the_answer_is_in_a_fold_and_a_choice_is_between_the_marks() -> None:
    before = Prediction(QUESTION)._repr_html_()
    Prediction(QUESTION).buttons[1].click()
    after = Prediction(QUESTION)._repr_html_()
    assert "<details>" in before
    assert f"{FIGURES[0]}<p>Your choice: b) &lt;b&gt;no&lt;/b&gt;</p>{FIGURES[1]}" in after
    assert after.replace("<p>Your choice: b) &lt;b&gt;no&lt;/b&gt;</p>", "") == before
    assert repr(Prediction(QUESTION)) == "Before you run the next cell. 1 < 2?\n  a) yes\n  b) <b>no</b>"


# The questionnaire.


def test_a_questionnaire_asks_again_and_says_what_the_learner_now_knows() -> None:
    Prediction(QUESTION).buttons[1].click()
    Prediction(OTHER).buttons[1].click()
    form = Questionnaire([QUESTION, OTHER])
    assert form.summary() == "None of the 2 questions is answered yet."
    form.predictions[0].buttons[0].click()
    assert "✔ You know it now." in form.predictions[0].answer.value
    assert "You now know 1 of 2; still to be answered: 1." in form._count.value
    form.predictions[1].buttons[1].click()
    assert "✔ You know it, as you did before." in form.predictions[1].answer.value
    assert "You now know 2 of 2." in form._count.value
    assert Prediction(QUESTION).chosen == 1, "the prediction is kept as it was"
    form.predictions[1].again.click()
    form.predictions[1].buttons[0].click()
    assert "✘ Not yet." in form.predictions[1].answer.value
    assert "You now know 1 of 2." in form._count.value
    assert "You now know 1 of 2." in Questionnaire([QUESTION, OTHER])._repr_html_()


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_questionnaire_has_five_different_questions_or_all_there_are(lesson: str) -> None:
    keys = [each.question.key for each in questionnaire(lesson).predictions]
    assert len(keys) == len(set(keys)) == min(5, len(questions(lesson)))


def test_code_and_emphasis_are_shown_as_such() -> None:
    question = Question("01", "marked", "a *new* id, `a*b*c` <", (Option("yes", "`x`", right=True), Option("no", "y")))
    prediction = Prediction(question)
    assert "a <em>new</em> id, <code>a*b*c</code> &lt;" in prediction._title()
    prediction.buttons[0].click()
    assert "<code>x</code>" in prediction.answer.value
