"""Untrusted JSON: every fault raises a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chatlab.untrusted_json import parse

DECODERS: list[Callable[[bytes], Any]] = [
    json.loads,
    msgspec.json.decode,
    msgspec.json.Decoder(dict[str, msgspec.Raw]).decode,
]


@pytest.mark.parametrize("decode", DECODERS)
def test_valid_json_is_decoded(decode: Callable[[bytes], Any]) -> None:
    assert list(parse(decode, b'{"a": [1]}')) == ["a"]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b'{"a":', b'{"a":"\\ud8"}', b'{"a":' + b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_invalid_json_is_a_value_error(decode: Callable[[bytes], Any], data: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse(decode, data)
    assert len(str(error.value)) < 200
