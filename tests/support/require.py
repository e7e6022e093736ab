"""What a test needs of the machine: without it the test is skipped, or fails if `CHATLAB_REQUIRE` names it."""

import os
from typing import NoReturn

import pytest


def missing(name: str, remedy: str) -> NoReturn:
    """Skip the test with the command that brings `name`; fail it if `name` is in the list CHATLAB_REQUIRE."""
    if name in os.environ.get("CHATLAB_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required and not here: {remedy}")
    pytest.skip(f"{name} is not here; what brings it: {remedy}")
