"""Predictions: a question to answer before running the cell that shows the answer.

    predict("01", "who-speaks-first")     the question, with a button for each option
    questionnaire("01")                   at the lesson's end: five of its questions again

Pressing an option shows whether it is right, and the reasons for all options. The choice is then locked and kept on
this machine, so that it is shown again the next day, until *Answer again* is pressed. Questions are data, translated
when they are loaded: `predictions/LESSON.toml` has a table for each with `question` and `options`, each option with
`text`, `why`, and `right = true` for the right one. Nothing is scored.
"""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from chatlab.lab.claims import FIGURES
from chatlab.lab.home import home
from chatlab.locale import _

LETTERS = "abcdefgh"
BEFORE = _("Before you run the next cell.")
ASKED_AGAIN = 5  # questions of a questionnaire
# JupyterLab centres the text of a button on one line, and cuts it.
STYLE = """<style>
.chatlab-option { text-align: left; white-space: normal; height: auto; line-height: 1.5; padding: 0.3em 0.8em }
.chatlab-option.chatlab-chosen { outline: 2px solid; opacity: 1 }
</style>"""  # not shown: CSS

__all__ = ["Option", "Prediction", "Question", "Questionnaire", "predict", "questionnaire", "questions"]


@dataclass(frozen=True, slots=True)
class Option:
    """An answer to choose: its text, whether it is right, and why."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its options, exactly one of them right."""

    lesson: str
    key: str
    text: str
    options: tuple[Option, ...]

    @property
    def right(self) -> int:
        """The index of the right option."""
        return next(index for index, option in enumerate(self.options) if option.right)


@cache
def questions(lesson: str) -> dict[str, Question]:
    """Return the questions of a lesson ("01" to "07") by key. Raises `KeyError` if the lesson has none."""
    file = files("chatlab.lab.widgets") / "predictions" / f"{lesson}.toml"
    if not file.is_file():
        raise KeyError(_("lesson {lesson!r} has no predictions").format(lesson=lesson))
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        key: Question(lesson, key, _(table["question"]), tuple(map(_option, table["options"])))
        for key, table in tables.items()
    }


def _html(text: str) -> str:
    """Return a text as HTML: `code` and *emphasis* as such, nothing else."""
    return re.sub(
        r"`([^`\n]+)`|\*(\w+)\*",
        lambda found: f"<code>{found[1]}</code>" if found[1] else f"<em>{found[2]}</em>",
        escape(text),
    )


def _option(table: dict[str, Any]) -> Option:
    return Option(_(table["text"]), _(table["why"]), table.get("right", False))


def predict(lesson: str, key: str) -> Prediction:
    """Show the question `key` of a lesson. Raises `KeyError` if it does not exist."""
    return Prediction(questions(lesson)[key])


def questionnaire(lesson: str) -> Questionnaire:
    """Show five of the lesson's questions, to answer again at its end. Raises `KeyError` if the lesson has none."""
    asked = list(questions(lesson).values())
    count = min(ASKED_AGAIN, len(asked))
    return Questionnaire([asked[index * len(asked) // count] for index in range(count)])


class Answers:
    """The choices that a learner has made, one file for each question, in a folder of the learner's home."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _file(self, question: Question) -> Path:
        folder = home() / self.folder
        folder.mkdir(exist_ok=True)
        return folder / f"{question.lesson}.{question.key}.json"

    def of(self, question: Question) -> int | None:
        """Return the index of the option chosen, or None. An option that has since been reworded counts as none."""
        try:
            chosen = json.loads(self._file(question).read_text(encoding="utf-8"))["chosen"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return next((index for index, option in enumerate(question.options) if option.text == chosen), None)

    def keep(self, question: Question, chosen: int) -> None:
        """Store a choice."""
        draft = self._file(question).with_suffix(f".{time.monotonic_ns()}.tmp")
        fields = {"chosen": question.options[chosen].text, "at": time.time()}
        draft.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
        draft.replace(self._file(question))

    def forget(self, question: Question) -> None:
        """Delete a choice."""
        self._file(question).unlink(missing_ok=True)


PREDICTED, RECALLED = Answers("predictions"), Answers("questionnaire")


class Prediction:
    """A question with a button for each option; once one is pressed, the reasons for all of them.

    Buttons, not radio buttons: JupyterLab captures the arrow keys, so no keyboard could reach the second option.
    `introduction` precedes the question; `judgement` says what a choice means; `on_answer` is called after each change.
    """

    def __init__(
        self,
        question: Question,
        *,
        kept: Answers = PREDICTED,
        introduction: str = BEFORE,
        judgement: Callable[[int], str] | None = None,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self.question = question
        self._kept, self._introduction, self._on_answer = kept, introduction, on_answer
        self._judgement = judgement or self._expected
        self.buttons = [self._button(index, option) for index, option in enumerate(question.options)]
        self.answer = widgets.HTML()
        self.again = widgets.Button(description=_("Answer again"))
        self.again.on_click(lambda __: self._forget())
        self.box = widgets.VBox([widgets.HTML(STYLE + self._title()), *self.buttons, self.answer, self.again])
        self._draw()

    @property
    def chosen(self) -> int | None:
        """The index of the option chosen, or None."""
        return self._kept.of(self.question)

    def _title(self) -> str:
        return f"<p><b>{escape(self._introduction)}</b> {_html(self.question.text)}</p>"

    def _button(self, index: int, option: Option) -> widgets.Button:
        button = widgets.Button(description=f"{LETTERS[index]}) {option.text}", layout=widgets.Layout(width="auto"))
        button.add_class("chatlab-option")
        button.on_click(lambda __: self._choose(index))
        return button

    def _choose(self, index: int) -> None:
        if self.chosen is None:
            self._kept.keep(self.question, index)
        self._draw()
        self.again.focus()  # the pressed button is disabled now, and would drop the keyboard's focus
        self._on_answer()

    def _forget(self) -> None:
        self._kept.forget(self.question)
        self._draw()
        self._on_answer()

    def _draw(self) -> None:
        chosen = self.chosen
        for index, button in enumerate(self.buttons):
            button.disabled = chosen is not None
            (button.add_class if index == chosen else button.remove_class)("chatlab-chosen")
        self.answer.value = "" if chosen is None else f"<div role='status'>{self._answered(chosen)}</div>"
        self.again.layout.display = "none" if chosen is None else ""

    def _answered(self, chosen: int) -> str:
        return f"<p><b>{escape(self._judgement(chosen))}</b></p>{self._reasons(chosen)}"

    def _expected(self, chosen: int) -> str:
        right = chosen == self.question.right
        return _("✔ You expected it.") if right else _("✘ Not this time. Here is why.")

    def _reasons(self, chosen: int | None = None) -> str:
        reasons = "".join(_reason(index, option, index == chosen) for index, option in enumerate(self.question.options))
        return f"<ul style='list-style:none;margin:0;padding:0;text-align:left'>{reasons}</ul>"

    def __repr__(self) -> str:
        options = "\n".join(f"  {LETTERS[i]}) {option.text}" for i, option in enumerate(self.question.options))
        return f"{self._introduction} {self.question.text}\n{options}"

    def _repr_html_(self) -> str:
        """Return the form for a page without a kernel: the answer opens with a click or the Enter key.

        A choice made before stands between the marks that a comparison of two runs leaves out.
        """
        lines = [f"{LETTERS[i]}) {_html(option.text)}" for i, option in enumerate(self.question.options)]
        options = "".join(f"<div>{line}</div>" for line in lines)
        chosen = "" if self.chosen is None else f"<p>{escape(_('Your choice:'))} {lines[self.chosen]}</p>"
        answer = f"<details><summary>{escape(_('Open the answer'))}</summary>{self._reasons()}</details>"
        return f"<div>{self._title()}{options}{FIGURES[0]}{chosen}{FIGURES[1]}{answer}</div>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _reason(index: int, option: Option, chosen: bool) -> str:
    text = f"{'✔' if option.right else '✘'} {LETTERS[index]}) <b>{_html(option.text)}</b>"
    mark = f" {escape(_('(your choice)'))}" if chosen else ""
    return f"<li style='margin:0.4em 0'>{text}{mark}<br>{_html(option.why)}</li>"


class Questionnaire:
    """Some questions again, and how many of them the learner can now answer."""

    def __init__(self, asked: list[Question]) -> None:
        self.predictions = [self._asked_again(number, question) for number, question in enumerate(asked, start=1)]
        self._count = widgets.HTML()
        self.box = widgets.VBox([*(each.box for each in self.predictions), self._count])
        self._draw()

    def _asked_again(self, number: int, question: Question) -> Prediction:
        return Prediction(
            question,
            kept=RECALLED,
            introduction=f"{number}.",
            judgement=lambda chosen: _known(question, chosen),
            on_answer=self._draw,
        )

    def _draw(self) -> None:
        self._count.value = f"<p role='status'><b>{escape(self.summary())}</b></p>"

    def summary(self) -> str:
        """Say how many of the questions are answered, and how many of those answers are right."""
        chosen = [each.chosen == each.question.right for each in self.predictions if each.chosen is not None]
        if not chosen:
            return _("None of the {total} questions is answered yet.").format(total=len(self.predictions))
        counts = _("You now know {right} of {total}; still to be answered: {left}.")
        if len(chosen) == len(self.predictions):
            counts = _("You now know {right} of {total}.")
        return counts.format(right=sum(chosen), total=len(self.predictions), left=len(self.predictions) - len(chosen))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.predictions))

    def _repr_html_(self) -> str:
        questions = "".join(each._repr_html_() for each in self.predictions)
        return f"<div>{questions}{FIGURES[0]}<p>{escape(self.summary())}</p>{FIGURES[1]}</div>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _known(question: Question, chosen: int) -> str:
    """Compare an answer at the lesson's end with the prediction made before."""
    before = PREDICTED.of(question)
    if chosen != question.right:
        return _("✘ Not yet. Here is why; its section shows it.")
    if before is None:
        return _("✔ You know it.")
    return _("✔ You know it, as you did before.") if before == question.right else _("✔ You know it now.")
