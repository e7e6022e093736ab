"""The rooms of tanks in JupyterLab, on a small screen, by keyboard: one room freezes, the other drops a member."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CELL = """\
from chatlab.lab.pictures import tank_rooms
from chatlab.lab.runtime import lab

await lab.start("tanks", tank_rooms())"""


async def test_a_closed_tap_freezes_one_room_and_the_other_closes_the_member(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "tanks", CELL)
    page, keyboard = notebook.page, notebook.page.keyboard

    def room(number: int) -> Locator:
        return page.locator(".chatlab-rooms > section").nth(number)

    await notebook.button("Nuri's tap: closed").focus()
    await keyboard.press("Enter")
    await expect(notebook.button("Nuri's tap: closed")).to_have_attribute("aria-pressed", "true")
    await notebook.button("Send 32 texts of 4096 bytes in each room").focus()
    await keyboard.press("Space")

    await expect(room(0).get_by_role("status")).to_have_text("Frozen: the loop waits for Nuri.", timeout=20_000)
    await expect(room(1).get_by_role("status")).to_contain_text("Nuri was closed: 1008 slow reader.")
    await expect(room(1)).to_contain_text("32 sent, 32 have reached everybody who reads")
    level = room(0).get_by_role("meter", name="Nuri's tank")
    assert int(await level.get_attribute("aria-valuenow") or 0) > 20_000
    await page.screenshot(path=pictures / "tanks-frozen.png")

    await page.get_by_label("The room on the left awaits each send").focus()
    await keyboard.press("Space")
    await expect(room(0).get_by_role("heading")).to_have_text("The article's room, without await")
    await notebook.button("Nuri's tap: closed").click()
    await notebook.button("Send 32 texts of 4096 bytes in each room").click()
    await expect(room(0)).to_contain_text("32 sent, 32 have reached", timeout=20_000)
    await expect(room(0).get_by_role("status")).to_contain_text("Nuri's tank goes on filling: it has no limit.")
    await page.screenshot(path=pictures / "tanks-without-await.png")

    names = await tab_through(page, page.locator(".chatlab-picture"))
    assert all(names)
    assert len(names) == 12
    assert await findings(page, within=NOTEBOOK) == []
    assert await page.evaluate("document.querySelector('.jp-OutputArea-output').scrollWidth") <= 1024
