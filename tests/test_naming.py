"""Names in any script: one spelling for names that look the same, and no invisible characters."""

from __future__ import annotations

import unicodedata

import pytest

from chatlab.naming import can_be_shown, goes_on, mixed_scripts, room_name, shown_name, skeletons


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
        "ශ්\u200dරී",  # Sinhala: after it
        "q\u0302",  # a mark for which there is no composed letter
        "\U00031350",  # an ideograph of Unicode 15
        "\U00011f02",  # Kawi, of Unicode 15
        "Ꭰ",
        "x" * 64,
        "각" * 64,
    ],
)
def test_a_room_name_may_have_letters_marks_and_numbers_of_any_script(name: str) -> None:
    assert room_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", ["고양이", "café", "がぎ", "ệ", "각" * 64, "ŵ" * 64])
def test_room_names_that_look_the_same_are_the_same(name: str) -> None:
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
        "\u0301a",  # a mark without a base character
        "\u3164",  # a blank letter
        "a\ufe0f",
        "a\u034fb",
        "a\u202eb",  # reverses the text that follows
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
def test_a_room_name_with_an_invisible_or_non_word_character_is_invalid(name: str) -> None:
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
        ("❤️‍🔥 kim 👩🏽‍💻 1️⃣", "❤️‍🔥 kim 👩🏽‍💻 1️⃣"),
        ("হাসান র\u200d্যাব", "হাসান র\u200d্যাব"),
        ("शर्मा हिन्दी", "शर्मा हिन्दी"),
        ("محمد العَرَبِيَّة", "محمد العَرَبِيَّة"),
        ("Ana  \t Maria", "Ana Maria"),
        ("\u3164", ""),
        ("\u2800 \u2800", ""),
        ("\u115f\u1160\uffa0", ""),
        ("\u0301\u0308", ""),
        ("\U000e0041\U000e007f", ""),
        ("\ufe0f\ufe0f", ""),
        ("Ana\u3164", "Ana"),
        ("A\u034fna\ufe0f", "Ana"),
        ("A\u00adna", "Ana"),
        ("\u0301Ana", "Ana"),
        ("Q" + "\u0323\u0302" * 40, "Q\u0323\u0323\u0323\u0323"),
    ],
)
def test_a_person_is_shown_on_one_line_under_one_spelling(asked: str, shown: str) -> None:
    assert shown_name(asked) == shown


@pytest.mark.parametrize(
    "name", ["\u3164", "\u2800", "a\u202eb", "a\nb", "\u0301a", "a\ufe0f", "a\u034fb", "a" + "\u0301" * 9]
)
def test_an_invisible_name_is_empty(name: str) -> None:
    assert not can_be_shown(name)


@pytest.mark.parametrize("name", ["kim", "민지", "می\u200cخواهم", "❤️‍🔥", "Ana Maria", "हिन्दी"])
def test_real_names_can_be_shown(name: str) -> None:
    assert can_be_shown(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("server", "ѕеrvеr"),
        ("Ana", "Аna"),
        ("ANA", "АNА"),
        ("Ana", "ana"),
        ("Kim", "KIM"),
        ("bill", "biII"),
        ("kim", "𝐤𝐢𝐦"),
        ("kim", "ｋｉｍ"),
        ("modern", "modem"),
        ("Ana Maria", "AnaMaria"),
        ("paypal", "раураl"),
        ("민지", "민\u3164지"),
        ("O0", "00"),
    ],
)
def test_names_that_look_alike_have_a_skeleton_in_common(one: str, other: str) -> None:
    assert skeletons(one) & skeletons(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("민지", "민자"),
        ("kim", "kim2"),
        ("Jose", "José"),
        ("김민지", "김민수"),
        ("Tom", "Tim"),
        ("हिन्दी", "हिन्दि"),
        ("😀", "😁"),
    ],
)
def test_names_that_look_different_have_no_skeleton_in_common(one: str, other: str) -> None:
    assert not skeletons(one) & skeletons(other)


@pytest.mark.parametrize("name", ["Аna", "раураl", "Kіm", "Αna", "Ana Kіm", "Սam"])
def test_a_word_that_mixes_lookalike_scripts_is_detected(name: str) -> None:
    assert mixed_scripts(name)


@pytest.mark.parametrize(
    "name",
    [
        "Ana Иванова",
        "민지Kim",
        "ひろkim漢字",
        "हिन्दी",
        "العَرَبِيَّة",
        "Анна",
        "Ελένη",
        "kim_1",
        "😀Kim",
        "Łukasz",
        "Nguyễn",
        "한글漢字",
    ],
)
def test_a_word_in_one_script_or_in_combining_scripts_is_not_mixed(name: str) -> None:
    assert mixed_scripts(name) == ()


@pytest.mark.parametrize("char", ["b", "\u0308", "1", "_", "\u200d", "한", "\U00031350"])
def test_a_word_goes_on_with_letters_marks_and_digits(char: str) -> None:
    assert goes_on(char)


@pytest.mark.parametrize("char", ["", " ", ".", "!", "@", "👍"])
def test_a_word_ends_before_anything_else(char: str) -> None:
    assert not goes_on(char)
