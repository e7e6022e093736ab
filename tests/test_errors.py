"""The drawn tree of errors matches the classes, and messages say what to do."""

import importlib
import inspect
import pkgutil
import re

import pytest

import chatlab
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


def drawn_tree() -> dict[str, str]:
    """Return class -> parent as drawn in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (match := re.match(r"^    ([ │├└─]*)([A-Z]\w+)", line)):
            continue
        depth, name = len(match[1]), match[2]
        path = [step for step in path if step[0] < depth]
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_the_drawn_tree_matches_the_classes() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, ChatlabError)}
    assert drawn_tree() == {
        name: each.__bases__[0].__name__ for name, each in classes.items() if each is not ChatlabError
    }


def test_a_setup_error_says_what_to_do() -> None:
    error = SetupError("port 8080 is taken", "choose another with --port")
    assert str(error) == "port 8080 is taken; choose another with --port"
    assert error.remedy == "choose another with --port"
    assert str(SetupError("port 8080 is taken")) == "port 8080 is taken"
    assert issubclass(EngineMissing, SetupError)


def test_a_protocol_error_carries_the_answer_to_the_peer() -> None:
    assert HandshakeError("no Host header").status == 400
    assert HandshakeError("version 8", 426, (("Sec-WebSocket-Version", "13"),)).headers[0][1] == "13"
    assert WebSocketError("reserved opcode 3").code == 1002
    assert StompError("no destination header", receipt_id="r-1").receipt_id == "r-1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BrokerUnavailable("no answer"), "not confirmed: no answer; it may still be delivered; do this"),
        (BrokerUnavailable("it is closed", outcome_unknown=False), "refused: it is closed"),
        (BrokerError("no such topic"), "refused: no such topic"),
        (BrokerClosed("closed"), "refused: closed"),
        (ZeroDivisionError("secret"), "not confirmed: the broker failed; it may still be delivered; do this"),
    ],
)
def test_only_messages_certainly_not_stored_are_called_refused(error: Exception, text: str) -> None:
    assert unpublished(error, "do this") == text


def public_errors_outside() -> list[str]:
    """Return the public error classes defined outside `errors`, except in the lab."""
    modules = pkgutil.walk_packages(chatlab.__path__, "chatlab.")
    names = [each.name for each in modules if not each.name.startswith("chatlab.lab")]
    return [
        f"{name}.{each.__name__}"
        for name in names
        for each in vars(importlib.import_module(name)).values()
        if inspect.isclass(each) and issubclass(each, Exception) and not each.__name__.startswith("_")
        if each.__module__ == name != "chatlab.errors"
    ]


def test_every_public_error_is_in_the_tree() -> None:
    assert public_errors_outside() == []
