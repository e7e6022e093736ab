"""Every text that a person reads can be translated, and the message template is up to date."""

from __future__ import annotations

import ast
import json
import re
import shutil
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import write_po

from chatlab.locale import pages
from tools import messages

ROOT = Path(__file__).parents[1]
SOURCES = [  # modules with texts that a person reads
    ROOT / "chatlab" / "cli.py",
    ROOT / "chatlab" / "classroom.py",
    *sorted((ROOT / "chatlab" / "lab").rglob("*.py")),
]
TRANSLATORS = {"_", "ngettext"}
LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
WORD = re.compile(r"[(\"'‘“]*[A-Za-z][a-z'’-]+[,.;:!?)\"'’”]*")
PLACEHOLDER = re.compile(r"%(\d+\$)?[-+ #0]*\d*(\.\d+)?[sdrfgixec]")


def is_prose(text: str) -> bool:
    """Return whether `text` has two or more consecutive words, ignoring HTML tags."""
    words = [bool(WORD.fullmatch(each)) for each in re.sub(r"<[^<>]*>", " ", text).split()]
    return any(one and other for one, other in pairwise(words))


def called_name(call: ast.Call) -> str:
    """Return the last name of the called function."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class Untranslated(ast.NodeVisitor):
    """Find the lines of a module with prose that cannot be translated."""

    def __init__(self, source: str) -> None:
        self.lines: list[int] = []
        self._not_shown = {n for n, line in enumerate(source.splitlines(), 1) if re.search("# not shown: .", line)}
        tree = ast.parse(source)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        exercises = [call for call in calls if called_name(call) == "Exercise"]
        arguments = [each for call in exercises for each in [*call.args, *(keyword.value for keyword in call.keywords)]]
        self._solutions = {each.id for each in arguments if isinstance(each, ast.Name)}
        self.visit(tree)

    def visit_Call(self, node: ast.Call) -> None:
        if called_name(node) in LOGS and isinstance(node.func, ast.Attribute):
            return
        if called_name(node) in TRANSLATORS:
            for argument in node.args:
                if isinstance(argument, ast.JoinedStr):
                    self.lines.append(argument.lineno)
            return
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # otherwise a docstring
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in self._solutions:
            self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        if node.name not in self._solutions:
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if node.name not in self._solutions:
            self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)  # its message is for the developers of chatlab

    def visit_Constant(self, node: ast.Constant) -> None:
        marked = self._not_shown & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node.value, str) and is_prose(node.value) and not marked:
            self.lines.append(node.lineno)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_text_that_a_person_reads_can_be_translated(file: Path) -> None:
    lines = Untranslated(file.read_text(encoding="utf-8")).lines
    assert [f"{file.relative_to(ROOT)}:{line}" for line in lines] == [], (
        "wrap it in _(), or mark it `# not shown: REASON`"
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('print("nobody is here")', [1]),
        ('print(_("nobody is here"))', []),
        ('print(f"{name} has come")', [1]),
        ('print(_(f"{name} has come"))', [1]),
        ('print("<b>Nobody</b> is here")', [1]),
        ('print("redis://localhost:6379", "GET /room HTTP/1.1")', []),
        ('log.info("nobody is here")', []),
        ('print("nobody is here")  # not shown: a log line', []),
        ('def f():\n    """Nobody is here."""', []),
        ('def answer():\n    return "nobody is here"\nExercise("01.1", answer)', []),
    ],
)
def test_a_text_that_cannot_be_translated_is_reported(source: str, lines: list[int]) -> None:
    assert Untranslated(source).lines == lines


def test_the_template_of_messages_is_up_to_date() -> None:
    assert messages.TEMPLATE.read_text("utf-8") == messages.template(), "run `make messages`"


def test_every_compiled_catalogue_is_up_to_date() -> None:
    for po in messages.LOCALE.glob("*/LC_MESSAGES/chatlab.po"):
        assert po.with_suffix(".mo").read_bytes() == messages.compiled(po), f"run `make messages`: {po}"


def test_every_placeholder_has_a_name() -> None:
    # Only the texts of Python and JavaScript: those of TOML have no placeholders, and braces in them are code.
    sources = {
        (file, text) for file, message in messages.messages() if not file.endswith(".toml") for text in texts(message)
    }
    assert [(file, text) for file, text in sorted(sources) if has_unnamed_placeholder(text)] == []


def texts(message: str | Sequence[str]) -> tuple[str, ...]:
    """Return the singular and the plural of a message."""
    return (message,) if isinstance(message, str) else tuple(message)


def has_unnamed_placeholder(text: str) -> bool:
    """Return whether `text` has a placeholder `{}`, `{0}` or `%s`, which a translator cannot move or understand."""
    if PLACEHOLDER.search(re.sub("`[^`]*`", "", text)):  # in backticks, % is Python's operator
        return True
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError:  # other braces, in a text that is not formatted
        return False
    return any(not name or name[0].isdecimal() for name in names)


@pytest.mark.parametrize("text", ["{} came", "{0} came", "%s came", "%d of {total}"])
def test_an_unnamed_placeholder_is_reported(text: str) -> None:
    assert has_unnamed_placeholder(text)
    assert not has_unnamed_placeholder("{name} came, 100 % of {total:.1f}")


# The pages.


def test_every_visible_text_of_the_rooms_page_is_a_message() -> None:
    html = (ROOT / "chatlab/room/page/index.html").read_text("utf-8")
    visible = {text.strip() for text in re.sub(r"<[^>]*>", "\n", html).split("\n") if text.strip()}
    assert visible <= set(pages.html_messages(html))
    script = (ROOT / "chatlab/room/page/room.js").read_text("utf-8")
    assert untranslated_in(script) == []


def untranslated_in(script: str) -> list[str]:
    """Return the strings of a script that contain prose and are not passed to `_()` or `pieces()`."""
    code = re.sub(r"(?m)^\s*//.*$|\s// .*$", "", script)
    code = re.sub(r'\b(_|pieces)\("(?:[^"\\\n]|\\.)*"', "", code)
    code = re.sub(r'startsWith\("[^"]*"\)|"use strict"', "", code)  # a text of the protocol, and a directive
    return [text for text in re.findall(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`', code) if is_prose(text)]


def test_every_visible_text_of_the_chats_page_exists_in_each_language() -> None:
    web = ROOT / "chatlab/chat/endpoint/web"
    html = (web / "index.html").read_text("utf-8")
    keys = set(re.findall(r'data-(?:word|hint)="([^"]+)"', html))
    words = (web / "words.js").read_text("utf-8")
    languages = {name: set(re.findall(r'^    "([^"]+)":', part, re.MULTILINE)) for name, part in language_parts(words)}
    assert languages["en"] == languages["ko"] >= keys
    loose = re.findall(r"<(?!title|h1|option|span|p class|noscript)(\w+)(?![^>]*data-word)[^>]*>([^<>\s][^<>]*)<", html)
    assert loose == []


def language_parts(words: str) -> Iterator[tuple[str, str]]:
    """Yield each language of words.js, and its part of the file."""
    for match in re.finditer(r"^  (\w+): \{\n(.*?)^  \},", words, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


# A language in which each message is the original in brackets.


@pytest.fixture(scope="module")
def bracketed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package with a catalogue for the language "xx", in which every message is in brackets."""
    root = tmp_path_factory.mktemp("bracketed")
    shutil.copytree(ROOT / "chatlab", root / "chatlab", ignore=shutil.ignore_patterns("__pycache__"))
    catalog = Catalog(locale="en", charset="utf-8")
    for message in messages.catalog():
        if message.id:
            translations = tuple(f"⟦{text}⟧" for text in texts(message.id))
            catalog.add(message.id, translations[0] if len(translations) == 1 else translations)
    folder = root / "chatlab" / "locale" / "xx" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "chatlab.po").open("wb") as file:
        write_po(file, catalog)
    (folder / "chatlab.mo").write_bytes(messages.compiled(folder / "chatlab.po"))
    return root


def run(root: Path, code: str, *arguments: str) -> str:
    """Run Python code in the bracketed language; return its output with runs of white space collapsed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={
            "CHATLAB_LANG": "xx",
            "PYTHONPATH": str(root),
            "CHATLAB_HOME": str(root),
            "COLUMNS": "300",
            "PATH": "/usr/bin",
        }
        | {"PYTHONIOENCODING": "utf-8", "TERMINAL_WIDTH": "300"},
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    return re.sub(r"[\s│]+", " ", done.stdout + done.stderr)


@pytest.mark.long
def test_the_command_lines_help_is_translated(bracketed: Path) -> None:
    output = run(bracketed, "from chatlab.cli import main; main()", "serve", "room", "--help")
    assert "⟦The article's room at /room: every text goes to every member. Its page is at /.⟧" in output
    assert "⟦The port to listen on; 0 takes any free one.⟧" in output
    output = run(bracketed, "from chatlab.cli import main; main()", "--help")
    assert "⟦Print the ledger: what the article claims" in output


def test_the_doctor_is_translated(bracketed: Path) -> None:
    output = run(bracketed, "from chatlab.cli import main; main()", "doctor")
    assert "⟦what to do⟧" in output
    assert "⟦open files⟧" in output


def test_an_error_on_the_command_line_is_translated(bracketed: Path) -> None:
    output = run(bracketed, "from chatlab.cli import main; main()", "serve", "chat", "--broker", "pigeon://x")
    assert "⟦no broker is called 'pigeon'⟧; the brokers are" in output


def test_the_rooms_page_is_translated(bracketed: Path) -> None:
    code = (
        "from chatlab.classroom import page_file; print(*(page_file(path)[0].decode() for path in ('/', '/words.js')))"
    )
    output = run(bracketed, code)
    assert '<html lang="xx">' in output
    assert "<h1>⟦The room⟧</h1>" in output
    assert 'aria-label="⟦Messages⟧"' in output
    assert '"in the room": "\\u27e6in the room\\u27e7"' in output


# One process for all of them: starting it takes longest.
WHAT_A_LESSON_SHOWS = """
import asyncio, json
from chatlab.lab.editions.edition import notes
from chatlab.lab.exercises import check, exercise, progress
from chatlab.lab.widgets.predict import questions
from chatlab.lab.wire import dissect
outcome = asyncio.run(check('03.1', lambda name, text: ''))
print(json.dumps({
    'predictions': [each.text for each in questions('01').values()],
    'options': [option.text for each in questions('01').values() for option in each.options],
    'notes': [section.say[0] for section in notes('01').sections if section.say],
    'hints': list(exercise.find('01.1').hints),
    'fields of a frame': str(dissect(bytes.fromhex('8100'))),
    'check': str(outcome),
    'mark': progress().marks['03.1'],
}))
"""


def test_what_a_lesson_shows_is_translated_but_the_file_of_the_progress_is_not(bracketed: Path) -> None:
    shown = json.loads(run(bracketed, WHAT_A_LESSON_SHOWS))
    for kind in ("predictions", "options", "notes", "hints"):
        assert shown[kind]
        assert all(text.startswith("⟦") and text.endswith("⟧") for text in shown[kind]), kind
    assert "⟦octets⟧" in shown["fields of a frame"]
    assert shown["check"].startswith("✘ 03.1 ⟦not yet⟧: ⟦")
    assert shown["mark"] == "not yet"


def test_a_cluster_reads_the_output_of_its_instances_in_any_language(bracketed: Path) -> None:
    code = """
import asyncio
from chatlab.lab.engines import Cluster
async def main():
    async with Cluster("memory://", instances=1) as cluster:
        print(cluster)
asyncio.run(main())
"""
    assert run(bracketed, code).strip() == "⟦1 of 1 instance alive⟧"


def test_the_texts_of_predictions_and_notes_are_in_the_template() -> None:
    catalog = messages.catalog()
    question = tomllib.loads((ROOT / "chatlab/lab/widgets/predictions/01.toml").read_text("utf-8"))["key"]["question"]
    assert question in catalog
    notes = tomllib.loads((ROOT / "chatlab/lab/editions/notes/01.toml").read_text("utf-8"))
    assert notes["section"][0]["say"][0] in catalog
    assert notes["section"][1]["ask"][0][1] in catalog
    assert notes["section"][1]["heading"] not in catalog  # it finds the section in the notebook
