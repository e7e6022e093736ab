"""The code of an experiment is shown as it is in its file, in a fold that needs no kernel."""

from __future__ import annotations

import contextlib
import functools
import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatlab.lab.experiments import lesson01
from chatlab.lab.widgets.code_fold import CodeFold, code_of


def text_of(fold: CodeFold) -> str:
    """Return the text that a browser shows."""
    return html.unescape(re.sub(r"<[^>]+>", "", fold._repr_html_()))


class Members:
    def greet(self, name: str) -> str:
        # Kept: a comment & a string.
        return f"<{name}> hello"


def test_the_source_is_dedented_and_complete_and_its_file_named() -> None:
    shown = text_of(code_of(Members.greet))
    title, _, code = shown.partition(".py")
    assert title == "The code of greettests/lab/widgets/test_code_fold"
    assert code.startswith("def greet(self, name: str) -> str:\n    # Kept: a comment & a string.\n")
    assert shown.endswith('return f"<{name}> hello"')


def test_the_fold_is_closed_and_its_title_short() -> None:
    fold = code_of(lesson01.one_unasked)
    assert fold._repr_html_().startswith("<details><summary>The code of one_unasked</summary>")
    assert repr(fold) == "The code of one_unasked, in chatlab/lab/experiments/lesson01.py"


def test_functions_of_one_file_follow_each_other_in_the_order_given() -> None:
    shown = text_of(code_of(lesson01.one_unasked, Members.greet, lesson01.hear))
    assert shown.count("chatlab/lab/experiments/lesson01.py") == 1
    assert shown.index("one_unasked(") < shown.index("hear(") < shown.index("def greet")


def test_keywords_have_the_colour_of_the_readers_editor() -> None:
    assert (
        "<span style='color:var(--jp-mirror-editor-keyword-color)'>return</span>"
        in code_of(Members.greet)._repr_html_()
    )


def test_a_decorated_function_shows_its_own_source() -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: object) -> tuple[Any, Any]:
            return function(*arguments), function(*arguments)

        return call

    @twice
    def answer() -> int:
        return 42

    assert "return 42" in text_of(code_of(answer))


def test_a_decorated_function_is_found_in_its_own_file() -> None:
    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        yield

    assert repr(code_of(opened)) == "The code of opened, in tests/lab/widgets/test_code_fold.py"


def test_an_object_without_a_source_is_an_error() -> None:
    with pytest.raises(TypeError):
        code_of(len)
