"""Settings of the JupyterLab that `chatlab lab` starts, and what it saves of a notebook.

A widget lives in its kernel: in a notebook that was saved and is opened the next day, JupyterLab shows "model not
found" in its place. So the reference to the widget is not saved, and JupyterLab shows the still form that each panel
has beside it. `jupyter/` names this module as an extension of the server, and holds JupyterLab's settings: no question
about news lies over the first lesson. Left out: other JupyterLabs, which keep their own settings.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

__all__ = ["configure", "without_widget_views"]

SETTINGS = Path(__file__).with_name("jupyter")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def configure(environment: MutableMapping[str, str]) -> None:
    """Make a JupyterLab with this environment read the settings, before those of the machine."""
    known = environment.get("JUPYTER_CONFIG_PATH")
    environment["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(SETTINGS), known]))


def without_widget_views(model: dict[str, Any], **__: object) -> None:
    """Remove the widgets from a notebook that is about to be saved, where another form of them is there."""
    if model["type"] != "notebook" or not model.get("content"):
        return
    for cell in model["content"].get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop(WIDGET_VIEW, None)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    server.contents_manager.register_pre_save_hook(without_widget_views)
