"""`chatlab lab` on a machine that has never seen it, on the first day and on the next.

Nothing lies over the lesson, nothing is spoiled, and a notebook that is opened again shows its panels as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.accessibility import NOTEBOOK, findings
from tests.support.jupyter import Lab, Notebook, first_start

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
TIMEOUT = 30_000  # ms
CELLS = (
    'from chatlab.lab.widgets import predict\nfrom chatlab import room\npredict("01", "key")',
    """\
from chatlab.lab.widgets import chat_panel
server = await room.start()
panel = await chat_panel(server.url)
await panel["가람"].send("안녕")
await panel["Nuri"].heard("안녕")
panel""",
    """\
from chatlab.lab.claims import Figure, verdict
async def again(value=9.0):
    return verdict("C4", holds=value < 50, measured="20 messages", figure=Figure("delay", value, 50, "ms"), again=again)
await again(0.41)""",
    'from chatlab.lab.exercises import check\nawait check("03.1", lambda name, text: "")',
    "from chatlab.lab.widgets import code_of\ncode_of(again)",
)


@pytest.fixture(scope="module")
def started(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with first_start(tmp_path_factory.mktemp("learner")) as running:
        yield running


async def page_at(lab: Lab, chrome: Browser, path: str) -> Page:
    page = await chrome.new_page(viewport={"width": 1400, "height": 1000})
    await page.goto(f"{lab.url}{path}?token={lab.token}")
    await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    return page


async def test_no_question_lies_over_the_first_lesson_and_only_lessons_are_in_the_list(
    started: Lab, chrome: Browser, pictures: Path
) -> None:
    page = await page_at(started, chrome, "/lab/tree/notebooks/00_start_here.ipynb")
    await page.wait_for_timeout(5000)  # the question about news comes some seconds after the start
    await page.screenshot(path=pictures / "first-start.png")
    assert await page.locator(".Toastify__toast, .jp-Dialog:not(:has-text('Kernel'))").count() == 0
    names = await page.locator(".jp-DirListing-itemText").all_inner_texts()
    assert len(names) == 8
    assert all(name.endswith(".ipynb") for name in names)


async def test_a_lesson_is_opened_without_outputs(started: Lab, chrome: Browser) -> None:
    page = await page_at(started, chrome, "/lab/tree/notebooks/01_handshake.ipynb")
    assert await page.locator(".jp-Notebook .jp-OutputArea-output").count() == 0


@pytest.mark.long
async def test_a_notebook_opened_the_next_day_shows_every_panel_as_it_was(
    started: Lab, chrome: Browser, pictures: Path
) -> None:
    path = started.folder / "chatlab-lessons" / "notebooks" / "mine.ipynb"
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(CELLS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebook = await Notebook.open(started, chrome, "notebooks/mine.ipynb")
    page = notebook.page
    await notebook.run_all()
    await notebook.button("b) To recognize the client when it comes back.").click()
    await expect(page.get_by_text("✘ Not this time.")).to_be_visible()
    await notebook.button("Run again").click()
    await expect(page.get_by_text("delay: 9 ms; the claim needs at least 50 ms: 41 ms below it").first).to_be_visible()
    await notebook.button("Hint").click()
    await expect(page.get_by_text("Hint 1 of").first).to_be_visible()
    assert await findings(page, within=NOTEBOOK) == []
    await page.screenshot(path=pictures / "cards.png", full_page=True)
    await page.keyboard.press("Control+s")
    await page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')", timeout=TIMEOUT)
    for session in started.request("GET", "/api/sessions"):
        started.request("DELETE", f"/api/sessions/{session['id']}")
    await page.close()

    page = await page_at(started, chrome, "/lab/tree/notebooks/mine.ipynb")
    outputs = page.locator(".jp-Notebook .jp-OutputArea-output")
    await expect(outputs).to_have_count(len(CELLS), timeout=TIMEOUT)
    await page.screenshot(path=pictures / "next-day.png")
    text = "\n".join(await outputs.all_inner_texts())
    assert "model not found" not in text
    assert "Loading widget" not in text
    assert "Before you run the next cell." in text
    assert "Chat, as it stood" in text
    assert "C4 holds" in text
    assert "03.1 not yet" in text
    assert "The code of again" in text
