"""Answers to the exercises, for the tests: a decorator above each says for which exercise it is.

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)

@wrong("01.1", "a part of the text that the learner must be shown")
def forgets_the_guid(key): ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answer = Callable[..., Any]
WrongAnswers = dict[str, list[tuple[Any, str]]]  # by exercise: an answer (a function, or a value) and the text
RightAnswers = dict[str, list[Any]]


def wrong_in(answers: WrongAnswers) -> Callable[[str, str], Callable[[Answer], Answer]]:
    """Return a decorator that adds a wrong answer, with a part of what its learner must be shown."""

    def wrong(id: str, sentence: str) -> Callable[[Answer], Answer]:
        def add(answer: Answer) -> Answer:
            answers.setdefault(id, []).append((answer, sentence))
            return answer

        return add

    return wrong


def right_in(answers: RightAnswers) -> Callable[[str], Callable[[Answer], Answer]]:
    """Return a decorator that adds a right answer."""

    def right(id: str) -> Callable[[Answer], Answer]:
        def add(answer: Answer) -> Answer:
            answers.setdefault(id, []).append(answer)
            return answer

        return add

    return right
