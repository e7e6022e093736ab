"""Printing characters that the console's encoding lacks: no error, and readable replacements."""

from __future__ import annotations

import io
import sys

import pytest

from chatlab import console


def written(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    octets = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(octets, encoding=encoding, errors="strict"))
    console.keep_writing()
    print(text, end="", flush=True)
    return octets.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "✔ 민지 🙂", "✔ 민지 🙂"),
        ("cp949", "✔ ✘ ○ ◐ ◌ 민지", "√ × ○ ◐ - 민지"),
        ("cp949", "민지 🙂 é", "민지 \\U0001f642 \\xe9"),
        ("cp1252", "✔ ✘ ○ é …", "+ × o é …"),
        ("cp1252", "가람: 안녕", "\\uac00\\ub78c: \\uc548\\ub155"),
        ("cp437", "✔ ✘ é", "√ x é"),
        ("ascii", "✔ ✘ ○ ◐ ◌ · … é", "+ x o ~ - - . \\xe9"),
        ("ascii", "a\N{RIGHT SINGLE QUOTATION MARK}b \N{EM DASH} →", "a'b - >"),
        ("utf-8", "caf\udce9", "caf\\udce9"),  # a file's name that is not UTF-8, as Python decodes it
        ("ascii", "caf\udce9", "caf\\udce9"),
    ],
)
def test_characters_that_the_encoding_lacks_are_replaced(
    encoding: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(text, encoding, monkeypatch) == shown


def test_a_stream_without_an_encoding_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    console.keep_writing()
    print("✔", file=sys.stderr)
    assert errors.getvalue() == "✔\n"


def test_can_show_reports_whether_an_encoding_has_a_text() -> None:
    assert console.can_show("▀▄█", "cp437")
    assert not console.can_show("▀▄█", "cp949")
    assert not console.can_show("é", "ascii")
