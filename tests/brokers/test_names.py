"""Ids and names: what comes from clients is checked, and no two names become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlab.brokers.names import escaped, parse_id, shortened
from chatlab.errors import BrokerError


def test_ids_compare_as_numbers() -> None:
    assert parse_id("9-10") < parse_id("10-9") < parse_id("10-10")
    assert parse_id("18446744073709551615-18446744073709551615") == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(
    "bad", ["", "1", "-1", "1-", "1--1", "a-b", "1-1-1", " 1-1", "1-1\r\n", "²-1", "1" * 41 + "-1"]
)
def test_an_invalid_id_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a record id"):
        parse_id(bad)


def test_names_keep_what_is_allowed_and_escape_the_rest() -> None:
    assert escaped("chat-stream.1", 50) == "chat-stream.1"
    assert escaped("chat:방_1", 50) == "chat_3a_eb_b0_a9_5f1"


@given(st.text(), st.text())
def test_two_names_never_become_one(one: str, other: str) -> None:
    try:
        assert (escaped(one, 10_000) == escaped(other, 10_000)) == (one == other)
    except (BrokerError, UnicodeEncodeError):
        assert one in ("", ".", "..") or other in ("", ".", "..") or any("\ud800" <= c <= "\udfff" for c in one + other)


@pytest.mark.parametrize("bad", ["", ".", "..", "x" * 51, "방" * 6])
def test_a_name_that_cannot_be_used_is_refused(bad: str) -> None:
    with pytest.raises(BrokerError, match="not a valid topic"):
        escaped(bad, 50)


def test_a_name_too_long_for_an_engine_becomes_a_digest_that_no_other_name_has() -> None:
    assert shortened("chat:방", 50) == escaped("chat:방", 50)
    long = [shortened(name, 50) for name in ("x" * 51, "x" * 52, "방" * 6, "방" * 5000, "@" + "x" * 50)]
    assert len({*long, escaped("@", 50)}) == 6
    assert all(len(name) == 65 and name.startswith("@") for name in long)
    with pytest.raises(BrokerError, match="not a valid topic"):
        shortened("", 50)
