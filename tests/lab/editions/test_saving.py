"""A saved notebook has no widgets, only their still forms; JupyterLab reads our settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chatlab.lab.editions import saving

VIEW = "application/vnd.jupyter.widget-view+json"


def saved(*outputs: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": list(outputs)}]
    model = {"type": "notebook", "content": {"cells": cells}}
    saving.without_widget_views(model, path="lesson.ipynb", contents_manager=None)
    return list(outputs)


def test_a_panel_is_saved_in_its_still_form() -> None:
    panel = {"output_type": "display_data", "data": {VIEW: {"model_id": "1"}, "text/html": "<p>", "text/plain": "p"}}
    printed = {"output_type": "stream", "text": "hello"}
    assert saved(panel, printed) == [
        {"output_type": "display_data", "data": {"text/html": "<p>", "text/plain": "p"}},
        printed,
    ]


def test_a_widget_without_another_form_is_left_as_it_is() -> None:
    assert saved({"output_type": "display_data", "data": {VIEW: {}}})[0]["data"] == {VIEW: {}}


@pytest.mark.parametrize("model", [{"type": "file", "content": "text"}, {"type": "notebook", "content": None}])
def test_other_files_are_saved_unchanged(model: dict[str, Any]) -> None:
    before = dict(model)
    saving.without_widget_views(model, path="notes.txt", contents_manager=None)
    assert model == before


def test_our_settings_come_before_those_of_the_machine_and_ask_nothing() -> None:
    environment = {"JUPYTER_CONFIG_PATH": "/etc/own"}
    saving.configure(environment)
    ours, theirs = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert theirs == "/etc/own"
    overrides = json.loads((Path(ours) / "labconfig" / "default_setting_overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
