"""Notebooks as a class hands them in, made from the shipped ones."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from chatlab.lab.editions.edition import lessons, solved
from chatlab.lab.exercises.exercise import exercises

PROOF = """\
from base64 import b64encode
from hashlib import sha1

def proof(key):
    {line}
    return b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()

await check("01.1", proof)"""


def notebook(lesson: str, answers: Mapping[str, str | None] | None = None, *, solve: bool = False) -> str:
    """Return a lesson's notebook: as shipped, or solved, with these sources in cells of exercises; None removes one."""
    made = nbformat.read(lessons()[lesson], as_version=4)
    kept = []
    for cell in made.cells:
        tags = [tag for tag in cell.metadata.get("tags", ()) if tag.startswith("exercise-")]
        id = tags[0].removeprefix("exercise-") if tags else ""
        if id and solve:
            cell = solved(cell, exercises()[id])
        if answers and id in answers:
            if answers[id] is None:
                continue
            cell.source = answers[id]
        kept.append(cell)
    made.cells = kept
    return str(nbformat.writes(made))


def hand_in(folder: Path, name: str, text: str) -> None:
    """Write a notebook into the inbox, below it if the name has a folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def cell_with(id: str, answer: Any) -> str | None:
    """Return a cell with a function of the tests' answers; None if it needs more than its own source."""
    if not inspect.isfunction(answer) or answer.__closure__ or answer.__name__ == "<lambda>":
        return None
    source = textwrap.dedent(inspect.getsource(answer))
    source = re.sub(r"\A(@.*\n)+", "", source)
    needed = inspect.getclosurevars(answer)
    imports = [_import(name, value) for name, value in needed.globals.items()]
    if not all(imports):
        return None
    future = "from __future__ import annotations\n\n"  # the names in the tests' annotations are not imported
    return f'{future}{"".join(imports)}{source}\nawait check("{id}", {answer.__name__})'


def _import(name: str, value: Any) -> str:
    """Return the line that imports what an answer uses; "" if it is from the tests."""
    if inspect.ismodule(value):
        return f"import {value.__name__} as {name}\n"
    module = str(getattr(value, "__module__", "tests"))
    return "" if module.startswith("tests") else f"from {module} import {value.__name__} as {name}\n"
