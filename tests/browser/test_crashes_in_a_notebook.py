"""The picture of a fault and the stepper in JupyterLab, on a small screen, the stepper by keyboard alone."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PICTURE = """\
from chatlab.lab.widgets import FaultPicture

picture = FaultPicture(["가람", "Nuri", "하늘"], messages=20, title="F1 and F2")
picture"""
FILL = """\
for number in range(20):
    picture.saw("가람", number, f"메시지 {number}", count=1 + number % 2)
    if number % 3:
        picture.saw("Nuri", number, f"메시지 {number}")
    picture.saw("하늘", None, None)"""
STEPPER = """\
from chatlab.lab.experiments.crashes.one_message import Stepper
from chatlab.lab.experiments.crashes.stepper_panel import stepper_panel
from chatlab.lab.runtime import lab

stepper = await lab.start("stepper", Stepper(await lab.engine("redis")).start())
await lab.start("panel", stepper_panel(stepper))"""


async def test_a_picture_fills_and_a_message_is_followed_step_by_step(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (PICTURE, FILL, STEPPER)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / "crashes.ipynb")
    notebook = await Notebook.open(lab, chrome, "crashes.ipynb", width=1024)
    await notebook.run_all()
    page, keyboard = notebook.page, notebook.page.keyboard

    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="가람"))
    await expect(row.get_by_role("cell")).to_have_text(["✔", "2×"] * 10)
    await expect(page.get_by_text("Nuri: 13 once, 7 missing")).to_be_visible()
    await expect(page.get_by_text("하늘: 20 empty")).to_be_visible()
    await page.screenshot(path=pictures / "fault-picture.png")

    for button, step, message in (
        ("Send, hold at reply", "held at the reply", "does not know"),
        ("Kill the instance", "instance killed, and back", "does not know"),
        ("Send again, new id", "sent again, new id", "twice"),
    ):
        await notebook.button(button).focus()
        await keyboard.press("Enter")
        done = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=step))
        await expect(done).to_contain_text(message, timeout=30_000)
    await page.screenshot(path=pictures / "stepper.png")

    panel = page.locator(".widget-vbox").filter(has=notebook.button("Kill Redis")).first
    names = await tab_through(page, panel)
    assert names[:3] == ["Send, hold at XADD", "Send, hold at reply", "Send, hold at RECEIPT"]
    assert all(names)
    assert await findings(page, within=NOTEBOOK) == []
