"""The code of an experiment, in a fold below the cell that runs it.

    code_of(lesson01.one_unasked)

It is HTML, not a widget, so a stored notebook and a page without a kernel show it too. The colours are those of the
reader's JupyterLab, light or dark. Left out: what the functions call; name those functions as well.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

import chatlab
from chatlab.locale import _

__all__ = ["CodeFold", "code_of"]

ROOT = Path(chatlab.__file__).parents[1]
PRE_STYLE = "style='overflow-x:auto;line-height:1.4'"  # not shown: CSS
# A kind of token, and JupyterLab's variable for its colour; without JupyterLab, the text's own colour.
COLOURS: dict[Any, str] = {
    Comment: "comment",
    Keyword.Constant: "atom",
    Keyword: "keyword",
    Operator.Word: "keyword",
    Operator: "operator",
    Name.Builtin: "builtin",
    Name.Function: "def",
    Name.Class: "def",
    Number: "number",
    String: "string",
}


def code_of(*functions: Callable[..., Any]) -> CodeFold:
    """Return the source of these functions or classes, in a fold that opens with a click or the Enter key.

    Raises `TypeError` or `OSError` for an object without a source.
    """
    return CodeFold(functions)


class CodeFold:
    """The source of some functions, with the name of the file that each is in."""

    def __init__(self, functions: tuple[Callable[..., Any], ...]) -> None:
        self.names = [function.__name__ for function in functions]
        self.sources: dict[str, str] = {}  # by file, in the order of the functions
        for function in map(inspect.unwrap, functions):
            file, source = _file_of(function), textwrap.dedent(inspect.getsource(function)).strip()
            self.sources[file] = "\n\n\n".join(filter(None, [self.sources.get(file), source]))

    def _title(self) -> str:
        return _("The code of {names}").format(names=", ".join(self.names))

    def __repr__(self) -> str:
        return _("{title}, in {files}").format(title=self._title(), files=", ".join(self.sources))

    def _repr_html_(self) -> str:
        parts = "".join(
            f"<div><small>{escape(file)}</small></div><pre {PRE_STYLE}>{_coloured(source)}</pre>"
            for file, source in self.sources.items()
        )
        return f"<details><summary>{escape(self._title())}</summary>{parts}</details>"


def _file_of(function: Callable[..., Any]) -> str:
    """Return the file's path below the project, or its name: the same on every machine."""
    file = Path(inspect.getsourcefile(function) or "")
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name


def _coloured(source: str) -> str:
    return "".join(_span(kind, text) for kind, text in PythonLexer(stripnl=False).get_tokens(source)).rstrip("\n")


def _span(kind: Any, text: str) -> str:
    colour = next((name for token, name in COLOURS.items() if kind in token), None)
    if colour is None:
        return escape(text, quote=False)
    return f"<span style='color:var(--jp-mirror-editor-{colour}-color)'>{escape(text, quote=False)}</span>"
