"""A class in one room: two browser windows, and a panel in a notebook that shows who joins through the page."""

from __future__ import annotations

import nbformat
import pytest
from playwright.async_api import Browser, expect

from chatlab import room
from tests.support.jupyter import Lab, Notebook

pytestmark = pytest.mark.long

CODE = "K7QX3M"
CELL = """\
from functools import partial
from chatlab.lab.clients import RoomClient
from chatlab.lab.widgets.panels import chat_panel
from chatlab.lab.runtime import lab

await lab.start("panel", chat_panel({url!r}, ("notebook",), client=partial(RoomClient, code={code!r})))"""


@pytest.mark.timeout(180)
async def test_two_windows_and_a_notebook_exchange_messages(lab: Lab, chrome: Browser) -> None:
    async with await room.start(code=CODE) as server:
        cell = nbformat.v4.new_code_cell(CELL.format(url=server.url, code=CODE))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), lab.folder / "notebooks" / "classroom.ipynb")
        notebook = await Notebook.open(lab, chrome, "classroom.ipynb")
        await notebook.run_all()
        panel = notebook.log("notebook")
        windows = []
        for name in ("Ana", "Ben"):
            page = await (await chrome.new_context()).new_page()
            await page.goto(server.page_url())
            await page.get_by_label("Your name").fill(name)
            await page.get_by_role("button", name="Enter").click()
            await expect(panel).to_contain_text(f"* {name} joined")
            windows.append(page)
        ana, ben = windows

        await ana.get_by_role("textbox", name="Message").fill("휴대폰에서 📱")
        await ana.keyboard.press("Enter")
        await expect(panel).to_contain_text("Server received from Ana: 휴대폰에서 📱")

        await notebook.line("notebook:").fill("노트북에서 💻")
        await notebook.button("Send as notebook").click()
        for page in (ana, ben):
            await expect(page.get_by_role("listitem").last).to_have_text("Server received from notebook: 노트북에서 💻")
