"""Handles, and the names that a guest may not take."""

from __future__ import annotations

import unicodedata

import pytest

from chatlab.chat.app import User
from chatlab.chat.directory import MAX_LEARNED, Directory, handle_of


def test_a_handle_does_not_reveal_its_principal_and_depends_on_the_key() -> None:
    user = User("Kim", "kim@example.org")
    assert user.handle == User("someone", "kim@example.org").handle != User("Kim", "kim").handle
    assert "kim" not in user.handle and len(user.handle) == 32
    assert handle_of("kim@example.org") == user.handle != handle_of("kim@example.org", b"a key")


def test_a_user_is_addressed_by_handle_or_by_principal_in_any_spelling() -> None:
    directory = Directory(b"a key")
    handle = handle_of("민지", b"a key")
    assert directory.addressed(handle) == handle
    assert directory.addressed("민지") == directory.addressed(unicodedata.normalize("NFD", "민지")) == handle


SERVERS_OWN = ("server", "Server", "ѕеrvеr", "SERVER", "ＳＥＲＶＥＲ", "s e r v e r", "서버")


@pytest.mark.parametrize("name", [*SERVERS_OWN, "guest-12ab", "GUEST-12AB", "ｇuest-O1ab"])
def test_no_guest_may_look_like_the_server_or_a_guest_without_a_name(name: str) -> None:
    assert Directory().fault_in(name)


@pytest.mark.parametrize("name", ["kim", "Kim", "KIM", "kіm", "𝐤𝐢𝐦", "k i m"])
def test_no_guest_may_look_like_a_user_that_is_listed_or_has_connected(name: str) -> None:
    assert Directory(names=["Kim"]).fault_in(name)
    directory = Directory()
    directory.learn("Kim")
    assert directory.fault_in(name)


@pytest.mark.parametrize(
    "name",
    ["kimi", "민지", "김Kim", "Ana Иванова", "😀", "हिन्दी", "محمد", "guest", "guest-1", "user-12", "observer"],
)
def test_ordinary_names_are_accepted(name: str) -> None:
    directory = Directory(names=["Kim"])
    assert directory.fault_in(name) == ""


def test_a_bounded_number_of_names_is_learned_and_the_oldest_are_forgotten() -> None:
    directory = Directory()
    directory.learn("first")
    directory.learn("second")
    directory.learn("first")
    for number in range(MAX_LEARNED - 1):
        directory.learn(f"한{number}")
    assert directory.fault_in("first")
    assert not directory.fault_in("second")
