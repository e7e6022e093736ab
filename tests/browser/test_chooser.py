"""The chooser in JupyterLab, used by keyboard alone."""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, expect

from tests.support.accessibility import NOTEBOOK, findings
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

SOURCE = """
from chatlab.lab.widgets.chooser import Chooser, Profile, Score

hare = {"is quick": Score(3, "first by far"), "arrives": Score(0, "sleeps")}
tortoise = {"is quick": Score(0, "last by far"), "arrives": Score(3, "never stops")}
letter = Profile("a letter", "It must get there.", {"arrives": 5})
Chooser({"hare": hare, "tortoise": tortoise}, {"is quick": 4, "arrives": 1}, profiles=[letter])
"""


@pytest.mark.long
async def test_arrow_keys_reverse_the_ranking_and_a_button_copies_the_record(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    cells = [nbformat.v4.new_code_cell(SOURCE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / "chooser.ipynb")
    notebook = await Notebook.open(lab, chrome, "chooser.ipynb")
    await notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await notebook.run_all()
    said = notebook.page.get_by_role("status").filter(has_text="fits best")
    record = notebook.page.get_by_role("textbox", name="Decision record")
    keyboard = notebook.page.keyboard
    await expect(said).to_contain_text("hare")
    slider = notebook.page.get_by_role("slider", name="is quick")
    await expect(slider).to_have_attribute("aria-valuetext", "very high")

    await slider.focus()
    await keyboard.press("Home")
    await expect(said).to_contain_text("tortoise")
    await expect(slider).to_have_attribute("aria-valuetext", "irrelevant")

    await keyboard.press("Tab")
    await expect(notebook.page.get_by_role("slider", name="arrives")).to_be_focused()
    for _ in range(4):
        await keyboard.press("ArrowUp")
    await expect(record).to_have_value(re.compile("critical: arrives"))

    await notebook.page.get_by_role("button", name="a letter").focus()
    await keyboard.press("Enter")
    await expect(record).to_have_value(re.compile("It must get there.*What we give up with tortoise", re.DOTALL))
    await notebook.page.get_by_role("button", name="Copy", exact=True).focus()
    await keyboard.press("Enter")
    await expect(notebook.page.get_by_text("Copied.")).to_be_visible()
    assert await notebook.page.evaluate("navigator.clipboard.readText()") == await record.input_value()
    await notebook.page.screenshot(path=pictures / "chooser.png")
    assert await findings(notebook.page, within=NOTEBOOK) == []
