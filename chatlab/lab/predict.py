"""Predictions: a question to answer before the telling cell is run.

    predict("01", "who-speaks-first")

shows the question with its options; choosing one and pressing the button says why that option is right or wrong, and
opens the rest. Questions are data: `predictions/LESSON.toml`, a table for each with `question` and `options`, each
option with `text`, `why`, and `right = true` for the one that is. Nothing is scored: a wrong guess is how one learns.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import ipywidgets as widgets

__all__ = ["Option", "Prediction", "Question", "predict", "questions"]


@dataclass(frozen=True, slots=True)
class Option:
    """One answer to choose: its text, whether it is right, and why it is or is not."""

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


@cache
def questions(lesson: str) -> dict[str, Question]:
    """The questions of a lesson ("01" to "07") by their keys. Raises `KeyError` for a lesson without any."""
    file = files("chatlab.lab") / "predictions" / f"{lesson}.toml"
    if not file.is_file():
        raise KeyError(f"lesson {lesson!r} has no predictions")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        key: Question(lesson, key, table["question"], tuple(Option(**option) for option in table["options"]))
        for key, table in tables.items()
    }


def predict(lesson: str, key: str) -> Prediction:
    """Show the question `key` of a lesson. Raises `KeyError` when there is none of that name."""
    return Prediction(questions(lesson)[key])


class Prediction:
    """A question on the page: options to choose from by mouse or arrow keys, and the reasons once one is chosen."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.choices = widgets.RadioButtons(
            options=[(option.text, index) for index, option in enumerate(question.options)],
            value=None,
            description="I expect:",
            layout=widgets.Layout(width="95%"),
            style={"description_width": "initial"},
        )
        self.button = widgets.Button(description="Was I right?", disabled=True, tooltip="Shows why, for each option")
        self.answer = widgets.HTML()
        self.choices.observe(self._chosen, "value")
        self.button.on_click(lambda _: self._reveal())
        title = widgets.HTML(f"<p><b>Before you run the next cell.</b> {escape(question.text)}</p>")
        self.box = widgets.VBox([title, self.choices, self.button, self.answer])

    def _chosen(self, _: object) -> None:
        self.button.disabled = self.choices.value is None

    def _reveal(self) -> None:
        chosen = self.choices.value
        if chosen is None:
            return
        found = "✔ You expected it." if self.question.options[chosen].right else "✘ Not this time. Here is why."
        self.answer.value = f"<div role='status'><p><b>{found}</b></p>{self._reasons(chosen)}</div>"

    def _reasons(self, chosen: int | None = None) -> str:
        rows = "".join(
            f"<li>{'<b>' if index == chosen else ''}{'✔' if option.right else '✘'} {escape(option.text)}"
            f"{'</b> (your choice)' if index == chosen else ''}: {escape(option.why)}</li>"
            for index, option in enumerate(self.question.options)
        )
        return f"<ul>{rows}</ul>"

    def __repr__(self) -> str:
        letters = "abcdefgh"
        options = "\n".join(f"  {letters[i]}) {option.text}" for i, option in enumerate(self.question.options))
        return f"Before you run the next cell. {self.question.text}\n{options}"

    def _repr_html_(self) -> str:
        """The form for a page without a kernel: the answer opens with a click or the Enter key."""
        options = "".join(f"<li>{escape(option.text)}</li>" for option in self.question.options)
        return (
            f"<p><b>Before you run the next cell.</b> {escape(self.question.text)}</p><ul>{options}</ul>"
            f"<details><summary>Open the answer</summary>{self._reasons()}</details>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}
