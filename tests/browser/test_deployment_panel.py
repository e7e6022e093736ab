"""The panel of a deployment in JupyterLab, on a small screen: everything is killed, a line is typed, all comes back."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.async_api import Browser, Locator, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CELL = """\
from chatlab.lab.engines import Cluster
from chatlab.lab.runtime import lab
from chatlab.lab.widgets import deployment_panel

engine = await lab.engine("redis", {"appendfsync": "always"})
cluster = await lab.start("cluster", Cluster(engine.url, instances=2).start())
await lab.start("panel", deployment_panel(cluster, engine, ("가람", "Nuri")))"""


async def test_a_line_typed_while_everything_is_dead_is_read_by_the_other_member_later(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook_file = lab.folder / "notebooks" / "deployment.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)]), notebook_file)
    notebook = await Notebook.open(lab, chrome, "deployment.ipynb", width=1024)
    await notebook.run_all()
    page, keyboard = notebook.page, notebook.page.keyboard

    def status(name: str) -> Locator:
        return page.get_by_role("status").filter(has_text=f"{name}:").first

    await expect(status("instance 1")).to_contain_text("가람")
    await expect(status("instance 2")).to_contain_text("Nuri")
    await page.screenshot(path=pictures / "deployment-alive.png")
    for process in ("instance 1", "instance 2", "Redis"):
        await notebook.button(f"kill -9 {process}").focus()
        await keyboard.press("Enter")
        await expect(status(process)).to_contain_text("✘ dead")
    await expect(page.get_by_text("Connected to no server: 가람, Nuri")).to_be_visible()

    for text in ("들려요?", "아무도 없어요?"):
        await notebook.line("Message:").fill(text)
        await keyboard.press("Enter")
        await expect(notebook.log("가람")).to_contain_text(f"… {text}")
    await expect(status("가람")).to_contain_text("waiting: 2 lines")
    await page.screenshot(path=pictures / "deployment-dead.png")

    for process in ("Redis", "instance 2"):
        await notebook.button(f"Start {process}").focus()
        await keyboard.press("Space")
        await expect(status(process)).to_contain_text("● running", timeout=30_000)
    await expect(notebook.log("Nuri")).to_contain_text("← 가람: 아무도 없어요?", timeout=20_000)
    await expect(status("가람")).not_to_contain_text("waiting")
    await expect(page.get_by_text("3 sent, 0 lost, 0 shown twice")).to_be_visible()
    await page.screenshot(path=pictures / "deployment-back.png")

    panel = page.locator(".widget-vbox").filter(has=notebook.line("Message:")).first
    names = await tab_through(page, panel)
    assert all(names)
    assert names[:3] == ["Stop instance 1", "kill -9 instance 1", "Start instance 1"]
    assert await findings(page, within=NOTEBOOK) == []
    assert await page.evaluate("document.querySelector('.jp-OutputArea-output').scrollWidth") <= 1024
