"""An exercise of lesson 01 as a learner uses it: a wrong answer, a hint, the right answer, and the progress shown."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, Locator, expect

from tests.support.accessibility import NOTEBOOK, findings
from tests.support.jupyter import NOTEBOOKS, Lab, Notebook

pytestmark = pytest.mark.timeout(180)

ANSWER = """\
from base64 import b64encode
from hashlib import sha1

from chatlab.lab.exercises.exercise import check, hint, solution

def proof(key):
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return b64encode(sha1((key + guid).encode()).digest()).decode()

await check("01.1", proof)"""
WRONG = ANSWER.replace("key + guid", "guid + key")
TIMEOUT = 30_000  # ms; the first check imports what it needs


def progress_cell() -> str:
    """Return the source of the cell of lesson 00 that shows the progress."""
    cells = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", as_version=4).cells
    return next(str(cell.source) for cell in cells if "progress_panel" in cell.source)


async def run(notebook: Notebook, cell: Locator, source: str = "") -> Locator:
    """Run a cell, with `source` in place of its text if given; return the element with its outputs."""
    keyboard = notebook.page.keyboard
    await cell.locator(".cm-content").click()
    if source:
        await keyboard.press("Control+A")
        await keyboard.insert_text(source)
    await keyboard.press("Control+Enter")
    return cell.locator(".jp-OutputArea")


async def cell_below(notebook: Notebook) -> Locator:
    """Insert a cell below the active one, and return it."""
    await notebook.page.keyboard.press("Escape")
    await notebook.page.keyboard.press("b")
    return notebook.cells.and_(notebook.page.locator(".jp-mod-active"))


@pytest.mark.long
async def test_an_exercise_answered_wrong_then_right_appears_in_the_progress(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebooks = lab.folder / "notebooks"  # a copy of the lesson, so that it gets a separate kernel
    shutil.copy(notebooks / "01_handshake.ipynb", notebooks / "exercises.ipynb")
    lesson = await Notebook.open(lab, chrome, "exercises.ipynb")
    exercise = lesson.cells.filter(has_text='check("01.1"').first

    output = await run(lesson, exercise)
    await expect(output).to_contain_text("○ 01.1 not tried", timeout=TIMEOUT)
    output = await run(lesson, exercise, WRONG)
    await expect(output).to_contain_text(
        "✘ 01.1 not yet: the key comes first, and the RFC's string after it", timeout=TIMEOUT
    )
    await expect(output).to_contain_text("not 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='", timeout=TIMEOUT)

    hint_output = await run(lesson, await cell_below(lesson), 'hint("01.1", 3)')
    await expect(hint_output).to_contain_text(re.compile(r"Hint 3 of \d for 01\.1"), timeout=TIMEOUT)
    await lesson.page.screenshot(path=pictures / "exercise-wrong-and-hinted.png")

    output = await run(lesson, exercise, ANSWER)
    await expect(output).to_contain_text("✔ 01.1 right: The proof", timeout=TIMEOUT)

    progress = await run(lesson, await cell_below(lesson), progress_cell())
    box = progress.get_by_role("checkbox", name="show here what I have solved")
    await expect(box).not_to_be_checked(timeout=TIMEOUT)  # hidden at first, because the screen may be projected
    await box.focus()
    await lesson.page.keyboard.press("Space")
    await expect(progress.get_by_role("row").filter(has_text="01")).to_contain_text(re.compile("○ ✔ ○.*1 of"))
    await lesson.page.screenshot(path=pictures / "exercise-right-and-progress.png")
    assert await findings(lesson.page, within=NOTEBOOK) == []
    assert (lab.folder / "home" / "progress" / "01.1.json").exists()
