"""A pytest plugin: nbval compares the cards of verdicts without their figures, which differ from run to run."""

from __future__ import annotations

from pathlib import Path

import pytest

PATTERNS = Path(__file__).with_suffix(".cfg")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the patterns, unless the command line names others."""
    if getattr(config.option, "nbval", False) and not config.option.nbval_sanitize_with:
        config.option.nbval_sanitize_with = str(PATTERNS)
