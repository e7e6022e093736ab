"""The poll interval dragged in JupyterLab, on a small screen: with the pointer, and by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CELL = """\
from chatlab.lab.pictures import poll_curve
from chatlab.lab.runtime import lab

await lab.start("curve", poll_curve())"""


async def test_the_interval_is_dragged_and_measured_where_it_is_let_go(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "curve", CELL)
    page, keyboard = notebook.page, notebook.page.keyboard
    status = page.locator(".chatlab-status")
    slider = page.get_by_role("slider", name="Poll interval")

    await slider.focus()
    for __ in range(3):
        await keyboard.press("ArrowLeft")
    assert "Every 100 ms" in (await slider.get_attribute("aria-valuetext") or "")
    await keyboard.press("Enter")
    await expect(status).to_have_text("Measuring at 100 ms …")
    await expect(status).to_contain_text("Measured at 100 ms", timeout=30_000)
    await expect(page.get_by_role("rowheader", name="polling every 100 ms")).to_be_visible()

    handle = await page.locator(".chatlab-handle").bounding_box()
    assert handle is not None
    await page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(handle["x"] + 100, handle["y"] + 40, steps=5)
    await page.mouse.up()
    await expect(status).to_contain_text("Measuring at ")
    await expect(status).not_to_contain_text("Measuring at 100 ms")
    await expect(status).to_contain_text("Measured at ", timeout=30_000)
    await page.screenshot(path=pictures / "poll-curve.png")

    names = await tab_through(page, page.locator(".chatlab-picture"))
    assert names == ["Poll interval", "Measure here"]
    assert await findings(page, within=NOTEBOOK) == []
    assert await page.evaluate("document.querySelector('.jp-OutputArea-output').scrollWidth") <= 1024
