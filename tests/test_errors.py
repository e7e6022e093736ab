"""The tree of errors: drawn as it is, and saying what to do."""

import inspect
import re

import pytest

from chatlab import errors
from chatlab.errors import (
    BrokerClosed,
    BrokerError,
    BrokerUnavailable,
    ChatlabError,
    EngineMissing,
    HandshakeError,
    SetupError,
    StompError,
    WebSocketError,
    unpublished,
)


def drawn() -> dict[str, str]:
    """Class -> parent, as the picture in the module's docstring has them."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (found := re.match(r"^    ([ │├└─]*)([A-Z]\w+)", line)):
            continue
        depth, name = len(found[1]), found[2]
        path = [step for step in path if step[0] < depth]
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_the_picture_of_the_tree_is_the_tree() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, ChatlabError)}
    assert drawn() == {name: each.__bases__[0].__name__ for name, each in classes.items() if each is not ChatlabError}


def test_a_setup_error_says_what_to_do() -> None:
    error = SetupError("port 8080 is taken", "choose another with --port")
    assert str(error) == "port 8080 is taken; choose another with --port"
    assert error.remedy == "choose another with --port"
    assert str(SetupError("port 8080 is taken")) == "port 8080 is taken"
    assert issubclass(EngineMissing, SetupError)


def test_a_protocol_error_carries_what_to_answer() -> None:
    assert HandshakeError("no Host header").status == 400
    assert HandshakeError("version 8", 426, (("Sec-WebSocket-Version", "13"),)).headers[0][1] == "13"
    assert WebSocketError("reserved opcode 3").code == 1002
    assert StompError("no destination header", receipt_id="r-1").receipt_id == "r-1"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BrokerUnavailable("no answer"), "not confirmed: no answer; it may still be delivered; do this"),
        (BrokerUnavailable("it is closed", outcome_unknown=False), "refused: it is closed"),
        (BrokerError("no such topic"), "refused: no such topic"),
        (BrokerClosed("closed"), "refused: closed"),
        (ZeroDivisionError("secret"), "not confirmed: the broker failed; it may still be delivered; do this"),
    ],
)
def test_only_what_surely_was_not_taken_is_called_refused(error: Exception, told: str) -> None:
    assert unpublished(error, "do this") == told
