"""A server logs one line for each event, and user input cannot forge one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from chatlab.logs.setup import log_to_stderr


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("chatlab")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_an_event_and_its_fields_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    logging.getLogger("chatlab.chat").info("connected", extra={"connection": "4f2a-1", "user": "안나 🙂"})
    line = capsys.readouterr().err
    assert line[8:] == ' INFO chatlab.chat connected connection=4f2a-1 user="안나 🙂"\n'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Ana", "Ana"),
        ("민지", "민지"),
        ("", '""'),
        ("Ana level=admin", '"Ana level=admin"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("C:\\x", r'"C:\\x"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("a\nb\u2028\x85", r'"a\nb\u2028\u0085"'),
        (None, "None"),
        (7, "7"),
    ],
)
def test_a_value_with_a_special_character_is_quoted_as_json(
    capsys: pytest.CaptureFixture[str], value: object, shown: str
) -> None:
    log_to_stderr()
    logging.getLogger("chatlab.chat").info("connected", extra={"user": value})
    assert capsys.readouterr().err[9:] == f"INFO chatlab.chat connected user={shown}\n"
    if shown.startswith('"'):
        assert json.loads(shown) == value


def test_input_cannot_forge_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    eve = 'eve" user="Ana" remote=127.0.0.1'
    logging.getLogger("chatlab.chat").info("refused %s", eve, extra={"user": eve, "connection": "4f2a-1"})
    # A parser of such lines finds a field wherever NAME= occurs outside quotes.
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "…", capsys.readouterr().err)
    assert re.findall(r"(\w+)=", outside) == ["user", "connection"]


def test_json_lines_have_the_same_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(as_json=True)
    logging.getLogger("chatlab.chat").info("connected as %s", "Ana", extra={"connection": "4f2a-1"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "chatlab.chat",
        "event": "connected as Ana",
        "connection": "4f2a-1",
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_break_in_user_input_is_escaped(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    log_to_stderr(as_json=as_json)
    said = "x\n13:00:00 INFO chatlab.chat all is well\r\x1b[2K\u2028\x85"
    logging.getLogger("chatlab.chat").info("refused %s", said, extra={"user": said})
    output = capsys.readouterr().err
    assert len(output.split("\n")) == 2
    assert not {"\r", "\x1b"} & set(output)


def test_a_traceback_is_indented_so_that_it_cannot_pass_for_events(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    try:
        raise ValueError("no such room: x\n13:00:00 INFO chatlab.chat all is well")
    except ValueError:
        logging.getLogger("chatlab.chat").exception("handler failed")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("ERROR chatlab.chat handler failed")
    assert "    13:00:00 INFO chatlab.chat all is well" in rest
    assert all(line.startswith("    ") for line in rest)


def test_the_level_applies_to_chatlab_and_libraries_log_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(level="debug")
    logging.getLogger("chatlab.room").debug("heard")
    logging.getLogger("websockets.server").info("connection open")
    logging.getLogger("websockets.server").warning("odd")
    assert [line[9:] for line in capsys.readouterr().err.splitlines()] == [
        "DEBUG chatlab.room heard",
        "WARNING websockets.server odd",
    ]
