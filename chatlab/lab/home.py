"""The one folder in which chatlab keeps what is a learner's own: verdicts, progress, notebooks put aside."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["home"]

LANDMARK = Path("notebooks") / "00_start_here.ipynb"


def home() -> Path:
    """`CHATLAB_HOME` if it is set, else `.chatlab/` beside the notebooks one works in, else `~/.chatlab`.

    The folder is made if it is missing.
    """
    folder = Path(os.environ["CHATLAB_HOME"]) if os.environ.get("CHATLAB_HOME") else _beside_the_notebooks()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _beside_the_notebooks() -> Path:
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / LANDMARK).exists():
            return folder / ".chatlab"
    return Path.home() / ".chatlab"
