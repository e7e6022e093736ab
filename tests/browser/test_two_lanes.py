"""Two lanes in slow motion in JupyterLab, on a small screen: dots move both ways at once on one lane only."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CELL = """\
from chatlab.lab.pictures import two_lanes
from chatlab.lab.runtime import lab

await lab.start("lanes", two_lanes())"""

# Count the dots, each time the picture is drawn: [on the HTTP lane out, back, on the WebSocket lane out, back].
WATCH = """() => {
    window.drawn = [];
    const dots = document.querySelector(".chatlab-lanes g");
    new MutationObserver(() => {
        const count = (of, low, high) => [...dots.querySelectorAll(of)]
            .filter((dot) => dot.cy.baseVal.value >= low && dot.cy.baseVal.value < high).length;
        window.drawn.push([count(".chatlab-out", 0, 120), count(".chatlab-back", 0, 120),
                           count(".chatlab-out", 120, 300), count(".chatlab-back", 120, 300)]);
    }).observe(dots, { childList: true });
}"""


async def meetings(page: Page) -> list[bool]:
    """Return for each lane whether a dot was seen on its way out while another was on its way back."""
    drawn: list[list[int]] = await page.evaluate("window.drawn")
    return [any(each[lane] and each[lane + 1] for each in drawn) for lane in (0, 2)]


async def test_dots_move_both_ways_at_once_on_the_websocket_lane_only(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "lanes", CELL)
    page, keyboard = notebook.page, notebook.page.keyboard
    await page.evaluate(WATCH)

    await page.get_by_label("Text", exact=True).focus()
    await keyboard.type("점심?")
    await keyboard.press("Enter")
    await expect(page.locator(".chatlab-out").first).to_be_visible()
    await notebook.button("Send three close together").focus()
    await keyboard.press("Space")
    await page.wait_for_function("window.drawn.some(([a, b, out, back]) => out && back)", timeout=15_000)
    await page.screenshot(path=pictures / "two-lanes.png")
    status = page.locator(".chatlab-status")
    await expect(status).to_contain_text("was on its way out while the echo of", timeout=30_000)
    await expect(status).to_contain_text("HTTP: text 4 waited")
    assert await meetings(page) == [False, True]

    await page.get_by_text("The same in figures (ms)").click()
    await expect(page.get_by_role("rowheader", name="HTTP 1", exact=True)).to_be_visible()
    names = await tab_through(page, page.locator(".chatlab-picture"))
    assert len(names) == 7
    assert all(names)
    assert await findings(page, within=NOTEBOOK) == []
    assert await page.evaluate("document.querySelector('.jp-OutputArea-output').scrollWidth") <= 1024


async def test_ten_times_slower_takes_ten_times_as_long(lab: Lab, chrome: Browser) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "lanes2", CELL)
    page = notebook.page
    slider = page.get_by_role("slider", name="Delay each way")
    await slider.focus()
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await expect(slider).to_have_attribute("aria-valuetext", "100 ms")
    await page.get_by_label("Show it").select_option("10 times slower")
    await page.get_by_label("Text", exact=True).fill("느리게")

    await notebook.button("Send on both lanes").click()
    await page.locator(".chatlab-out").first.wait_for()
    began = await page.evaluate("performance.now()")
    await expect(page.locator(".chatlab-out, .chatlab-back")).to_have_count(0, timeout=20_000)

    assert 1500 < await page.evaluate("performance.now()") - began < 6000  # 2 × 100 ms, ten times slower


async def test_with_reduced_motion_a_table_takes_the_place_of_the_picture(lab: Lab, chrome: Browser) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "lanes3", CELL)
    await notebook.page.emulate_media(reduced_motion="reduce")

    await notebook.button("Send three close together").click()

    await expect(notebook.page.locator(".chatlab-lanes")).to_be_hidden()
    await expect(notebook.page.get_by_role("rowheader", name="WebSocket 3", exact=True)).to_be_visible(timeout=20_000)
    await expect(notebook.page.locator(".chatlab-status")).to_contain_text("was on its way out", timeout=20_000)
