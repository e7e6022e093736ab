"""The pictures of bits, handshakes and frames in JupyterLab on a small screen, clicked and typed on real servers."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

SET_UP = """\
from chatlab import echo
from chatlab.lab.runtime import lab

by_hand = await lab.start("by hand", echo.start_by_hand())
library = await lab.start("library", echo.start())"""
BITS = """\
from chatlab.lab.pictures import header_bits

await lab.start("bits", header_bits(by_hand.url))"""


async def opened(lab: Lab, chrome: Browser, name: str, *sources: str) -> Notebook:
    """Open a notebook with these cells on a screen of 1024 pixels, and run them."""
    cells = [nbformat.v4.new_code_cell(source) for source in (SET_UP, *sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / f"{name}.ipynb")
    notebook = await Notebook.open(lab, chrome, f"{name}.ipynb", width=1024)
    await notebook.run_all()
    return notebook


def field(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


async def shown(page: Page, name: str, pictures: Path) -> None:
    """Take a picture of the group called `name`, in the light and in the dark theme; nothing in it is cut off."""
    group = page.get_by_role("group", name=name)
    assert await group.evaluate("each => each.scrollWidth <= each.clientWidth")
    for theme in ("Dark", "Light"):
        await change_theme(page, f"JupyterLab {theme}")
        await group.screenshot(path=pictures / f"{name.split(',')[0].replace(' ', '-').lower()}-{theme.lower()}.png")
        assert await findings(page, within=NOTEBOOK) == []


async def change_theme(page: Page, theme: str) -> None:
    await page.get_by_role("menuitem", name="Settings", exact=True).click()
    await page.locator(".lm-Menu-itemLabel", has_text="Theme").first.hover()
    await page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
    await page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")


async def test_header_bits_are_flipped_and_sent_with_mouse_and_keyboard(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await opened(lab, chrome, "bits", BITS)
    page, keyboard = notebook.page, notebook.page.keyboard
    group = page.get_by_role("group", name="The header, bit by bit")

    await notebook.button("Send").click()
    await expect(field(page, "payload")).to_contain_text('✔ The server sends back: "안녕 👋"')

    await notebook.button("MASK").click()
    await expect(notebook.button("MASK")).to_have_attribute("aria-pressed", "false")
    await notebook.button("Send").click()
    await expect(field(page, "MASK")).to_contain_text("✘ The server closes with 1002: TEXT frame from the client")

    await notebook.button("Right header").click()
    await notebook.button("FIN").focus()
    await keyboard.press("Space")
    await expect(field(page, "FIN")).to_contain_text("more frames of this message follow")
    await keyboard.press("ArrowRight")
    await expect(notebook.button("RSV1")).to_be_focused()
    await keyboard.press("d")  # JupyterLab deletes the cell at two of these
    await keyboard.press("d")
    await notebook.line("Text").fill("")
    await notebook.line("Text").press_sequentially("네, dd!")
    await keyboard.press("Enter")
    await expect(group.get_by_role("status").last).to_have_text(
        "Silence for 1 s: the server waits for the rest of the message."
    )
    await expect(field(page, "FIN")).to_contain_text("… Silence for 1 s")

    names = await tab_through(page, group)
    assert names[:2] == ["FIN", "RSV1"]
    assert names[-3:] == ["Text", "Send", "Right header"]
    assert all(names)
    await shown(page, "The header, bit by bit", pictures)
