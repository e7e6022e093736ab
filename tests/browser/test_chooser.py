"""The chooser in JupyterLab, worked by keyboard alone."""

import nbformat
import pytest
from playwright.async_api import Browser, expect

from tests.support.jupyter import Lab, Notebook

pytestmark = pytest.mark.timeout(180)

SOURCE = """
from chatlab.lab.chooser import Chooser, Score

hare = {"is quick": Score(3, "first by far"), "arrives": Score(0, "sleeps")}
tortoise = {"is quick": Score(0, "last by far"), "arrives": Score(3, "never stops")}
Chooser({"hare": hare, "tortoise": tortoise}, {"is quick": 4, "arrives": 1})
"""


async def test_a_number_typed_turns_the_ranking_round(lab: Lab, chrome: Browser) -> None:
    cells = [nbformat.v4.new_code_cell(SOURCE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / "chooser.ipynb")
    notebook = await Notebook.open(lab, chrome, "chooser.ipynb")
    await notebook.run_all()
    first = notebook.page.get_by_role("status", name="ranking").get_by_role("row").nth(1)
    await expect(first).to_contain_text("hare")
    keyboard = notebook.page.keyboard

    await notebook.line("is quick").focus()
    await keyboard.press("Control+A")
    await keyboard.type("0")
    await keyboard.press("Tab")
    await expect(first).to_contain_text("tortoise")

    await notebook.line("arrives").focus()
    await keyboard.press("Control+A")
    await keyboard.type("5")
    await keyboard.press("Enter")
    await expect(notebook.page.get_by_text("above all")).to_be_visible()
