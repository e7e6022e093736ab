"""A difference shows the first unit that differs, and marks every one without relying on colours."""

from __future__ import annotations

import pytest

from chatlab.lab.exercises.difference import Difference


@pytest.mark.parametrize(
    ("yours", "expected", "sentence"),
    [
        (b"\x81\x05", b"\x81\x85", "they differ from byte 2 on: yours 05, expected 85"),
        (b"\x81", b"\x81\x85", "they differ from byte 2 on: yours nothing, expected 85"),
        ("Nuri:hello", "Nuri: hello", "they differ from character 6 on: yours h, expected ␣"),
        (["a"], ["b"], "they differ from character 3 on: yours a, expected b"),
        (b"a", "a", "they differ from character 1 on: yours b, expected '"),
    ],
)
def test_the_sentence_names_the_first_unit_that_differs(yours: object, expected: object, sentence: str) -> None:
    assert str(Difference(yours, expected)) == sentence


def test_what_differs_is_struck_out_in_yours_and_underlined_in_the_expected_value() -> None:
    html = Difference(b"\x81\x05\x61", b"\x81\x85\x61")._repr_html_()
    yours, expected = html.split("</tr>")[:2]
    assert ">yours<" in yours
    assert "81 <del style=" in yours
    assert "line-through'>05</del> 61" in yours
    assert ">expected<" in expected
    assert "underline'>85</ins> 61" in expected


@pytest.mark.parametrize(("yours", "expected"), [("<b>", "x"), ("x", "<b>"), ("<b>1", "<b>2")])
def test_markup_in_an_answer_is_escaped(yours: str, expected: str) -> None:
    html = Difference(yours, expected)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_white_space_that_differs_is_visible() -> None:
    assert "\\n</del>" in Difference("a\n", "a")._repr_html_()


def test_a_space_between_the_items_of_a_list_is_no_difference_to_look_for() -> None:
    assert "␣" not in Difference([], ["a", "b c"])._repr_html_()


def test_a_long_value_is_shown_around_the_first_difference() -> None:
    html = Difference(bytes(1000) + b"\x01" + bytes(1000), bytes(2001))._repr_html_()
    assert "they differ from byte 1001 on: yours 01, expected 00" in html
    assert "<code>… 00 00" in html
    assert html.count("00") < 150


def test_a_value_that_goes_on_after_what_is_shown_ends_with_an_ellipsis_and_no_other_does() -> None:
    html = Difference("x" * 30 + "y" * 50, "x" * 30 + "z" * 40)._repr_html_()
    yours, expected = html.split("</tr>")[:2]
    assert yours.endswith(" …</code>")
    assert expected.endswith("</ins></code>")
