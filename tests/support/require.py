"""Programs that a test needs: if one is missing, the test is skipped, or fails if `CHATLAB_REQUIRE` names it."""

import os
from typing import NoReturn

import pytest


def missing(name: str, remedy: str) -> NoReturn:
    """Skip the test and name the command that installs `name`; fail it if CHATLAB_REQUIRE lists `name`."""
    if name in os.environ.get("CHATLAB_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required and missing: {remedy}")
    pytest.skip(f"{name} is missing; to install it: {remedy}")
