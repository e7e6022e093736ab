"""Names in any script: one spelling for what looks the same, and nothing invisible."""

from __future__ import annotations

import unicodedata

import pytest

from chatlab.naming import goes_on, room_name, shown_name


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    "name",
    [
        "cats",
        "a_b-1",
        "고양이",
        "日本語",
        "עברית",
        "ภาษาไทย",
        "हिन्दी",
        "தமிழ்",
        "বাংলা",
        "العَرَبِيَّة",
        "ệ",
        "Ĳ²Ⅳ",
        "می\u200cخواهم",  # Persian: the joiner keeps two letters apart
        "র\u200d্যাব",  # Bengali: before the virama
        "ශ්\u200dරී",  # Sinhala: behind it
        "q\u0302",  # a mark for which there is no composed letter
        "\U00031350",  # an ideograph of Unicode 15
        "\U00011f02",  # Kawi, of Unicode 15
        "Ꭰ",
        "x" * 64,
        "각" * 64,
    ],
)
def test_a_room_has_letters_marks_and_numbers_of_any_script(name: str) -> None:
    assert room_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", ["고양이", "café", "がぎ", "ệ", "각" * 64, "ŵ" * 64])
def test_what_looks_the_same_is_the_same_room(name: str) -> None:
    assert nfd(name) != name
    assert room_name(nfd(name)) == room_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a.b",
        "a/b",
        "a\n",
        "{x}",
        "*",
        "👍",
        "€",
        "a\u200db",  # a joiner where no script needs it
        "\u200d",
        "می\u200c",
        "می\u200c\u200cخ",
        "\u0301a",  # a mark with nothing to stand on
        "\u3164",  # a letter that is blank
        "a\ufe0f",
        "a\u034fb",
        "a\u202eb",  # turns what follows around
        "\ufeff",
        "\ud800",
        "\ue000",
        "\uffff",
        "\U0002ffff",
        "\U000e0041",
        "x" * 65,
        "각" * 65,
        "x" * 100_000,
    ],
)
def test_a_room_has_nothing_that_is_no_part_of_a_word_or_cannot_be_seen(name: str) -> None:
    assert room_name(name) is None


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (" kim ", "kim"),
        (nfd("민지"), "민지"),
        ("a\u202eb\x1b[2J\n", "ab[2J"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("k\u200bim\u200d", "kim"),
        ("\U00031350", "\U00031350"),
        ("👍 ok", "👍 ok"),
        ("\u200d\n", ""),
        ("", ""),
        ("민" * 100, "민" * 64),
        (nfd("민" * 100), "민" * 64),
    ],
)
def test_a_person_is_shown_on_one_line_under_one_spelling(asked: str, shown: str) -> None:
    assert shown_name(asked) == shown


@pytest.mark.parametrize("char", ["b", "\u0308", "1", "_", "\u200d", "한", "\U00031350"])
def test_a_word_goes_on_with_letters_marks_and_digits(char: str) -> None:
    assert goes_on(char)


@pytest.mark.parametrize("char", ["", " ", ".", "!", "@", "👍"])
def test_a_word_ends_before_anything_else(char: str) -> None:
    assert not goes_on(char)
