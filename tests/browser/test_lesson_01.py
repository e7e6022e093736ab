"""Lesson 01 as a learner sees it: the wire panel in JupyterLab, and the fields of a selected event."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook, browser

pytestmark = [pytest.mark.long, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def notebook(lab: Lab) -> AsyncIterator[Notebook]:
    """Open the lesson and run every cell."""
    async with browser() as chrome:
        notebook = await Notebook.open(lab, chrome, "01_handshake.ipynb")
        await notebook.run_all()
        yield notebook


def events(notebook: Notebook) -> Locator:
    return notebook.page.get_by_label("Events", exact=True)


def details(notebook: Notebook) -> Locator:
    return notebook.page.get_by_role("region", name="the event that is picked")


async def select(notebook: Notebook, text: str) -> None:
    """Select the first event of the list that contains `text`."""
    option = events(notebook).locator("option").filter(has_text=text).first
    await events(notebook).select_option(label=await option.inner_text())


async def test_selecting_a_frame_shows_its_fields(notebook: Notebook, pictures: Path) -> None:
    shown = details(notebook)
    await select(notebook, "HTTP/1.1 101 Switching Protocols")
    await expect(shown).to_contain_text("HTTP ends here: frames follow")

    await select(notebook, 'client → server: websocket text "안녕 👋"')
    for field, explanation in (
        ("FIN", "the last frame of its message"),
        ("opcode", "TEXT, a data frame"),
        ("MASK", "masked: sent by a client"),
        ("Masking-key", "XOR"),
        ("Payload data", '"안녕 👋"'),
    ):
        await expect(shown.get_by_role("row").filter(has_text=field).first).to_contain_text(explanation)
    await shown.scroll_into_view_if_needed()
    await notebook.page.screenshot(path=pictures / "lesson01.png")


async def test_a_typed_message_appears_on_the_wire(notebook: Notebook) -> None:
    await notebook.line("가람:").last.fill("보여요? 👀")
    await notebook.page.keyboard.press("Enter")

    await expect(events(notebook)).to_contain_text('server → client: websocket text "보여요? 👀"')


async def test_the_wire_panel_can_be_used_by_keyboard_alone(notebook: Notebook) -> None:
    keyboard = notebook.page.keyboard

    await notebook.button("Newest event").focus()
    await keyboard.press("Enter")
    await expect(details(notebook)).to_contain_text("not masked: sent by a server")

    await notebook.button("Previous event").focus()
    await keyboard.press("Space")
    await expect(details(notebook)).to_contain_text("masked: sent by a client")

    await notebook.page.get_by_role("slider", name="Delay, ms").focus()
    await keyboard.press("ArrowRight")
    await expect(notebook.page.get_by_text("what the server sends takes 10 ± 0 ms more")).to_be_visible()
    await keyboard.press("Home")

    await notebook.button("Stall").focus()
    await keyboard.press("Enter")
    await expect(notebook.page.get_by_text("what the server sends is stalled")).to_be_visible()
    await notebook.button("Heal").focus()
    await keyboard.press("Enter")
    await expect(notebook.page.get_by_text("what the server sends passes at once")).to_be_visible()


async def test_a_prediction_says_why_an_answer_is_wrong(notebook: Notebook) -> None:
    await notebook.button("a) To encrypt the messages that follow.").first.click()  # it comes back at the end

    await expect(notebook.page.get_by_text("✘ Not this time. Here is why.")).to_be_visible()


async def test_tab_reaches_every_control_of_the_wire_panel_and_each_has_a_name(notebook: Notebook) -> None:
    panel = notebook.page.locator(".widget-vbox").filter(has=events(notebook)).first

    names = await tab_through(notebook.page, panel)

    assert all(names)
    assert names[:2] == ["가람:", "Send as 가람"]
    walk = names.index("Previous event")
    assert names[walk : walk + 4] == ["Previous event", "Next event", "Newest event", "Events"]
    assert {"everything", "Delay, ms", "the opcode", "Stall", "Flip a bit"} <= set(names)
    assert names[-2:] == ["Heal", "More faults"]

    await notebook.button("More faults").focus()
    await notebook.page.keyboard.press("Enter")
    await expect(notebook.page.get_by_role("slider", name="give or take, ms")).to_be_visible()
    assert {"give or take, ms", "Half-open", "Cut"} <= set(await tab_through(notebook.page, panel))


async def test_lesson_01_has_no_accessibility_findings(notebook: Notebook) -> None:
    assert await findings(notebook.page, within=NOTEBOOK) == []
