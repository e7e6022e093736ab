"""The folder in which chatlab keeps a learner's own data: verdicts, progress, notebooks set aside."""

from __future__ import annotations

import os
from pathlib import Path

from chatlab.errors import SetupError
from chatlab.locale import _

__all__ = ["FOLDER", "LANDMARK", "home", "workbook"]

LANDMARK = Path("notebooks") / "00_start_here.ipynb"
FOLDER = Path("chatlab-lessons")  # the learner's copy of the notebooks, made by `chatlab lab`


def home() -> Path:
    """Return `CHATLAB_HOME` if it is set, else `.chatlab/` beside the notebooks in use, else `~/.chatlab`.

    The folder is created if it is missing. Raises `SetupError` if it cannot be.
    """
    folder = Path(os.environ["CHATLAB_HOME"]) if os.environ.get("CHATLAB_HOME") else _beside_the_notebooks()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            _("no folder for your own work at {folder}: {error}").format(folder=folder, error=error.strerror),
            _("set CHATLAB_HOME to a folder that you may write to"),
        ) from error
    return folder


def _beside_the_notebooks() -> Path:
    return (workbook() or Path.home()) / ".chatlab"


def workbook() -> Path | None:
    """Return the folder above the notebooks in use, found from the current folder upwards; None if there is none.

    The learner's copy comes before the notebooks that it was made from.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        for candidate in (folder / FOLDER, folder):
            if (candidate / LANDMARK).exists():
                return candidate
    return None
