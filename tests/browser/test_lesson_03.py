"""Lesson 03 as a learner sees it, in JupyterLab, used by mouse and by keyboard alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook, browser

pytestmark = [pytest.mark.long, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def notebook(lab: Lab) -> AsyncIterator[Notebook]:
    """Open the lesson and run every cell."""
    async with browser() as chrome:
        notebook = await Notebook.open(lab, chrome, "03_broadcast_handler.ipynb")
        await notebook.run_all()
        yield notebook


@pytest.mark.long
async def test_a_message_sent_from_one_client_appears_in_the_other(notebook: Notebook, pictures: Path) -> None:
    await notebook.line("가람:").last.fill("브라우저에서 보냄 🖥️")
    await notebook.button("Send as 가람").last.click()

    await expect(notebook.log("Nuri").last).to_contain_text("Server received from 가람: 브라우저에서 보냄 🖥️")
    await notebook.log("Nuri").last.scroll_into_view_if_needed()
    await notebook.page.screenshot(path=pictures / "lesson03.png")


async def test_the_chat_panel_can_be_used_by_keyboard_alone(notebook: Notebook) -> None:
    keyboard = notebook.page.keyboard

    await notebook.line("가람:").last.focus()
    await keyboard.type("키보드로 ⌨️")
    await keyboard.press("Enter")
    await expect(notebook.log("Nuri").last).to_contain_text("키보드로 ⌨️")

    await keyboard.press("Tab")  # to Send as 가람
    await keyboard.press("Tab")  # to Disconnect 가람
    await keyboard.press("Space")
    await expect(notebook.button("Connect 가람").last).to_be_visible()
    await keyboard.press("Space")
    await expect(notebook.button("Disconnect 가람").last).to_be_visible()

    await notebook.line("New client").last.focus()
    await keyboard.type("하늘")
    await keyboard.press("Enter")
    await expect(notebook.button("Send as 하늘").last).to_be_enabled()
    await expect(notebook.log("Nuri").last).to_contain_text("* 하늘 joined (3 here)")

    await notebook.page.get_by_title("하늘 does not read").last.focus()
    await keyboard.press("Enter")
    await expect(notebook.page.get_by_role("heading", name="하늘: ● open, does not read")).to_be_visible()
    await notebook.line("가람:").last.fill("하늘, 읽고 있어요?")
    await keyboard.press("Enter")
    await expect(notebook.log("Nuri").last).to_contain_text("읽고 있어요?")
    await expect(notebook.log("하늘").last).not_to_contain_text("읽고 있어요?")
    await notebook.button("Make 하늘 vanish").last.focus()
    await keyboard.press("Enter")
    await expect(notebook.log("Nuri").last).to_contain_text("* 하늘 left (2 here)")


async def test_a_prediction_can_be_answered_by_keyboard_alone(notebook: Notebook) -> None:
    option = "a) Nothing bad: there is one thread, so nothing else runs."
    await notebook.button(option).first.focus()  # it comes back at the end
    await notebook.page.keyboard.press("Tab")  # to b), which is right
    await notebook.page.keyboard.press("Space")

    await expect(notebook.page.get_by_text("✔ You expected it.")).to_be_visible(timeout=20_000)


async def test_tab_reaches_every_control_of_the_chat_panel_and_each_has_a_name(notebook: Notebook) -> None:
    panel = notebook.page.locator(".widget-vbox").filter(has=notebook.line("New client")).last

    names = await tab_through(notebook.page, panel)

    assert all(names)
    assert names[:4] == ["가람:", "Send as 가람", "Disconnect 가람", "log of 가람"]
    assert names[4:9] == ["reads", "one a second", "does not read", "Make 가람 vanish", "Remove 가람"]
    assert names[-2:] == ["New client", "Add a client"]


async def test_lesson_03_has_no_accessibility_findings_except_unnamed_charts(notebook: Notebook) -> None:
    # JupyterLab shows an image/png as an `img` without `alt`, and takes no `alt` from the output. The figures of a
    # chart are printed, or are in a verdict below it.
    assert await findings(notebook.page, within=NOTEBOOK, without=[".jp-RenderedImage img"]) == []
