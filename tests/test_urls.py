"""A URL is shown without its password, however it is written."""

from __future__ import annotations

import pytest

from chatlab.urls import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@127.0.0.1:6379", "redis://:***@127.0.0.1:6379"),
        ("redis://me:secret@[::1]:6379/2", "redis://me:***@[::1]:6379/2"),
        ("redis://me@host", "redis://me@host"),
        ("redis://me:s@cret@host", "redis://me:***@host"),
        ("redis://me:a:b%2Fc@host", "redis://me:***@host"),
        ("unix://me:secret@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock"),
        ("redis://host/0?password=secret", "redis://host/0"),
        ("amqp://guest:guest@127.0.0.1:5672/%2Fchat?heartbeat=5", "amqp://guest:***@127.0.0.1:5672/%2Fchat"),
        ("kafka://me:secret@one:9092,two:9092", "kafka://me:***@one:9092,two:9092"),
        ("memory://", "memory://"),
        ("kafka", "kafka"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sec/ret@host:6379/0",
        "redis://:sec#ret@host:6379/0",
        "redis://:sec?ret@host:6379/0",
        "redis://:sec?a=ret@host:6379/0",
        "redis://:s@e/ret@host",
        "redis://:sec[ret@host",
        "redis://:sec]ret@host",
        "redis://me:secret",  # without a host
        "redis:me:secret@host",
        "me:secret@host",
        "redis://host?ssl_password=secret",
        " redis://:secret@host\n",
    ],
)
def test_a_password_that_is_not_encoded_is_hidden_too(url: str) -> None:
    assert "sec" not in without_password(url)
    assert "ret" not in without_password(url)
