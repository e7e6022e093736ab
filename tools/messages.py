"""`make messages`: collect what a person reads into chatlab/locale/chatlab.pot, and bring each language up to date.

Messages come from `_()` and `ngettext()` in Python, from the predictions and the instructor's notes in TOML, and from
the room page's HTML and JavaScript. The template has no dates and no line numbers, so that only a changed message
changes it. Each chatlab/locale/*/LC_MESSAGES/chatlab.po is merged with it and compiled to the .mo beside it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from chatlab.chat.budgets import TABLE
from chatlab.locale import DOMAIN
from chatlab.locale.pages import html_messages, javascript_messages

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "chatlab" / "locale"
TEMPLATE = LOCALE / f"{DOMAIN}.pot"
TOML_FOLDERS = ("chatlab/lab/widgets/predictions", "chatlab/lab/editions/notes")
SHOWN = {
    "question",
    "text",
    "why",
    "prepare",
    "say",
    "wrong",
    "ask",
    "title",
    "what",
}  # not headings: they name sections
PAGE = "chatlab/room/page"

Message = str | tuple[str, str]


@cache
def messages() -> list[tuple[str, Message]]:
    """Return the file and the message of everything that is translated; a plural is a pair."""
    limits = [("chatlab/chat/budgets.py", text) for budget in TABLE.values() for text in (budget.what, budget.beyond)]
    return [*_python(), *limits, *_toml(), *_pages()]


def _python() -> Iterator[tuple[str, Message]]:
    for file in sorted((ROOT / "chatlab").rglob("*.py")):
        if "chatlab.locale import" in file.read_text("utf-8"):  # tokenizing all the others would take seconds
            for _line, message, *_ in extract_from_file("python", file, keywords={"_": None, "ngettext": (1, 2)}):
                yield (
                    file.relative_to(ROOT).as_posix(),
                    message if isinstance(message, str) else (message[0], message[1]),
                )


def _toml() -> Iterator[tuple[str, Message]]:
    for folder in TOML_FOLDERS:
        for file in sorted((ROOT / folder).glob("*.toml")):
            for text in toml_messages(tomllib.loads(file.read_text("utf-8"))):
                yield f"{folder}/{file.name}", text


def _pages() -> Iterator[tuple[str, Message]]:
    for file in sorted((ROOT / PAGE).iterdir()):
        read = {".html": html_messages, ".js": javascript_messages}.get(file.suffix)
        if read is not None:
            yield from ((f"{PAGE}/{file.name}", text) for text in read(file.read_text("utf-8")))


def toml_messages(value: Any, shown: bool = False) -> Iterator[str]:
    """Yield every text in parsed TOML that is under one of the `SHOWN` keys."""
    if isinstance(value, str):
        if shown and value:
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from toml_messages(each, shown)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from toml_messages(each, key in SHOWN)


def catalog() -> Catalog:
    """Return all messages as a catalog, each with the files it is in."""
    found = Catalog(
        project=DOMAIN, charset="utf-8", header_comment="# The messages of chatlab. Written by `make messages`."
    )
    for file, message in messages():
        found.add(message, locations=[(file, 0)])
    return found


def template() -> str:
    """Return the text of chatlab.pot."""
    out = BytesIO()
    write_po(out, catalog(), width=120, sort_by_file=True, include_lineno=False)
    return re.sub(
        r'^"(POT-Creation-Date|PO-Revision-Date|Generated-By|Last-Translator|Language-Team|Project-Id-Version'
        r'|Report-Msgid-Bugs-To): .*"\n',
        "",
        out.getvalue().decode(),
        flags=re.MULTILINE,
    )


def compiled(po: Path) -> bytes:
    """Return the .mo file of a language."""
    out = BytesIO()
    with po.open("rb") as file:
        write_mo(out, read_po(file))
    return out.getvalue()


def merge(po: Path) -> None:
    """Bring a language's catalog up to date with the template: new messages are empty, changed ones fuzzy."""
    with po.open("rb") as file:
        language = read_po(file)
    language.update(catalog(), update_creation_date=False)
    out = BytesIO()
    write_po(out, language, width=120, sort_by_file=True, include_lineno=False)
    po.write_bytes(out.getvalue())


def main() -> None:
    """Write the template, then merge and compile each language."""
    TEMPLATE.write_text(template(), "utf-8")
    for po in sorted(LOCALE.glob(f"*/LC_MESSAGES/{DOMAIN}.po")):
        merge(po)
        po.with_suffix(".mo").write_bytes(compiled(po))
    print(f"{len(catalog())} messages are in {TEMPLATE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
