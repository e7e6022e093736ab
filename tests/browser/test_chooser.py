"""The chooser in JupyterLab, used by keyboard alone."""

from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, expect

from tests.support.accessibility import NOTEBOOK, findings
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

SOURCE = """
from chatlab.lab.widgets.chooser import Chooser, Score

hare = {"is quick": Score(3, "first by far"), "arrives": Score(0, "sleeps")}
tortoise = {"is quick": Score(0, "last by far"), "arrives": Score(3, "never stops")}
Chooser({"hare": hare, "tortoise": tortoise}, {"is quick": 4, "arrives": 1})
"""


@pytest.mark.long
async def test_arrow_keys_reverse_the_ranking(lab: Lab, chrome: Browser, pictures: Path) -> None:
    cells = [nbformat.v4.new_code_cell(SOURCE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / "chooser.ipynb")
    notebook = await Notebook.open(lab, chrome, "chooser.ipynb")
    await notebook.run_all()
    first = notebook.page.get_by_role("status", name="ranking").get_by_role("row").nth(1)
    await expect(first).to_contain_text("hare")
    keyboard = notebook.page.keyboard
    slider = notebook.page.get_by_role("slider", name="is quick")

    await slider.focus()
    await keyboard.press("Home")
    await expect(first).to_contain_text("tortoise")
    await expect(notebook.page.get_by_text("no matter")).to_be_visible()

    await keyboard.press("Tab")
    await expect(notebook.page.get_by_role("slider", name="arrives")).to_be_focused()
    for _ in range(4):
        await keyboard.press("ArrowUp")
    await expect(notebook.page.get_by_text("above all")).to_be_visible()
    await notebook.page.screenshot(path=pictures / "chooser.png")
    assert await findings(notebook.page, within=NOTEBOOK) == []
