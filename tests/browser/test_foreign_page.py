"""A really foreign page in a real browser: which cookie comes along, which origin, and who is let in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from chatlab.lab.pictures import foreign_page
from chatlab.lab.pictures.foreign_page import COOKIES, FOREIGN, NEIGHBOUR, OWN, RECORDED
from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CELL = """\
from chatlab.lab.pictures import foreign_page
from chatlab.lab.runtime import lab

await lab.start("foreign", foreign_page())"""
COOKIE = "visitor=garam"
HEADERS = {
    "SameSite=Lax": "Set-Cookie: visitor=garam; SameSite=Lax",
    "SameSite=Strict": "Set-Cookie: visitor=garam; SameSite=Strict",
    "without SameSite": "Set-Cookie: visitor=garam",
}
LET_IN, REFUSED = "101, let in", "403, refused"


def received(page: Page, who: str) -> Locator:
    """Return the row of one page in the table of what the server received."""
    table = page.get_by_role("table", name="What the server received")
    return table.get_by_role("row").filter(has=page.get_by_role("rowheader", name=who, exact=True))


async def test_a_foreign_page_is_told_apart_by_its_origin_and_a_neighbour_by_nothing_else(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "foreign", CELL)
    page, keyboard = notebook.page, notebook.page.keyboard
    status = page.locator(".chatlab-status")

    for kind in HEADERS:
        await page.get_by_label("The site's login cookie").focus()
        await keyboard.type(kind)
        await expect(page.get_by_text(HEADERS[kind], exact=True)).to_be_visible()
        await notebook.button("Open the three pages").focus()
        await keyboard.press("Enter")
        await expect(status).to_contain_text("Foreign page: let in (101), without the cookie.", timeout=15_000)
        await expect(received(page, "own page")).to_contain_text(COOKIE)
        await expect(received(page, "neighbour")).to_contain_text(COOKIE)
        await expect(received(page, "foreign page")).to_contain_text("http://localhost:")
        await expect(received(page, "foreign page")).not_to_contain_text(COOKIE)
    await page.screenshot(path=pictures / "foreign-any-origin.png")

    await page.get_by_label("The server accepts only its own origin").focus()
    await keyboard.press("Space")
    await notebook.button("Open the three pages").click()
    await expect(status).to_contain_text("Foreign page: refused (403)", timeout=15_000)
    await expect(received(page, "own page")).to_contain_text(LET_IN)
    await expect(received(page, "neighbour")).to_contain_text(COOKIE)
    await expect(received(page, "neighbour")).to_contain_text(REFUSED)
    await expect(received(page, "foreign page")).to_contain_text(REFUSED)
    await page.screenshot(path=pictures / "foreign-own-origin.png")

    names = await tab_through(page, page.locator(".chatlab-picture"))
    assert all(names)
    assert len(names) == 7
    assert await findings(page, within=NOTEBOOK) == []
    assert await page.evaluate("document.querySelector('.jp-OutputArea-output').scrollWidth") <= 1024


async def test_a_foreign_page_in_a_tab_of_its_own_reads_what_the_server_says(lab: Lab, chrome: Browser) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "foreign2", CELL)

    async with notebook.page.expect_popup() as opening:
        await notebook.page.get_by_role("link", name="foreign page").click()
    tab = await opening.value

    await expect(tab.get_by_role("status")).to_have_text("✔ Hello, whoever you are.")
    await expect(received(notebook.page, "foreign page, in its own tab")).to_contain_text("http://localhost:")


@pytest_asyncio.fixture
async def tab(program: str, tmp_path: Path) -> AsyncIterator[Page]:
    """Open a tab of a browser that allows third-party cookies, which some builds of Chromium do not by default."""
    preferences = tmp_path / "profile" / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    preferences.write_text(json.dumps({"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": False}}))
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=program, args=options
        )
        yield await context.new_page()
        await context.close()


async def test_a_browser_that_allows_third_party_cookies_sends_what_was_recorded(tab: Page) -> None:
    picture = await foreign_page()
    sent = {}
    for kind in COOKIES:
        picture.received({"do": "cookie", "kind": kind})
        picture.open_pages("127.0.0.1")
        for who in (OWN, NEIGHBOUR, FOREIGN):
            await tab.goto(picture.urls()[who])
            await tab.get_by_text("Hello").wait_for()
        sent[kind] = tuple(picture.knocks[who].cookie for who in (OWN, NEIGHBOUR, FOREIGN))
    await picture.aclose()

    assert sent == RECORDED
