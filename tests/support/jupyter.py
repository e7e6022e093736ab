"""A real JupyterLab in a real browser: start the server, open a notebook, run it all, touch its widgets.

`Lab` is one JupyterLab server on a free loopback port, on a copy of the notebooks. `Notebook` is one of them open in a
Chromium page. Playwright drives the browser; what is installed as `chromium` on PATH is what is driven.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright
from playwright.async_api import TimeoutError as NotSeen
from websockets.asyncio.client import connect

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SETTINGS = {
    # Every cell is in the page, whether it is in sight or not.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


HOW_THE_RUN_ENDS = """() => {
    if (document.querySelector('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')) return "error";
    const cells = document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt');
    const prompts = [...cells].map(each => each.innerText);
    if (prompts.every(prompt => /^\\[\\d+\\]:/.test(prompt)) &&
        !document.querySelector('.jp-NotebookPanel-toolbar [data-status="busy"]')) return "done";
    if (prompts.some(prompt => prompt.includes("*"))) window.quietSince = undefined;
    else if (prompts.some(prompt => /\\[ *\\]/.test(prompt))) window.quietSince ??= Date.now();
    return Date.now() - (window.quietSince ?? Infinity) > 5000 ? (window.quietSince = undefined, "dropped") : false;
}"""


def chromium() -> str | None:
    """The browser's program, or None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHATLAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Lab:
    """One JupyterLab server."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        self.url = url
        self.token = token

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask Jupyter's REST interface; returns the JSON of the answer."""
        request = urllib.request.Request(  # a loopback address of our own
            f"{self.url}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    async def start_kernel(self, path: str) -> str:
        """Give the notebook at `path` a kernel and wait until it has been idle for a second; return its id.

        Run All pressed while a kernel is still starting is lost.
        """
        wish = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        kernel: str = (await asyncio.to_thread(self.ask, "POST", "/api/sessions", wish))["kernel"]["id"]
        async with asyncio.timeout(60):
            await self._talk_to(kernel)
            idle_since: float | None = None
            while idle_since is None or time.monotonic() - idle_since < 1:
                await asyncio.sleep(0.1)
                state = (await asyncio.to_thread(self.ask, "GET", f"/api/kernels/{kernel}"))["execution_state"]
                idle_since = (idle_since or time.monotonic()) if state == "idle" else None
        return kernel

    async def _talk_to(self, kernel: str) -> None:
        """Ask the kernel for its info and wait for the answer: one nobody has talked to says "starting" for good."""
        address = f"{self.url.replace('http', 'ws')}/api/kernels/{kernel}/channels?token={self.token}"
        header = {"msg_id": "1", "session": "test", "username": "", "msg_type": "kernel_info_request", "version": "5.3"}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": {}, "channel": "shell"}
        async with connect(address, proxy=None, max_size=None) as channels:
            await channels.send(json.dumps(request))
            async for message in channels:
                if isinstance(message, str) and json.loads(message)["msg_type"] == "kernel_info_reply":
                    return


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[Lab]:
    """Run a JupyterLab on a copy of the notebooks in `folder`; it and its kernels are gone afterwards."""
    shutil.copytree(NOTEBOOKS, folder / "notebooks", dirs_exist_ok=True)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    token = "test"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--ip=127.0.0.1", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0", "--LabApp.news_url="]
    environment = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "CHATLAB_HOME": str(folder / "home"),
    }
    log = (folder / "jupyter.log").open("w")
    server = subprocess.Popen(command, cwd=folder / "notebooks", env=environment, stdout=log, stderr=log)
    try:
        yield Lab(folder, _wait_for_url(server, folder / "runtime"), token)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def _wait_for_url(server: subprocess.Popen[bytes], runtime: Path) -> str:
    """The address the server wrote into its runtime file, once it answers there."""
    for _ in range(600):
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
                urllib.request.urlopen(f"{url}/login", timeout=5).close()
                return url
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{(runtime.parent / 'jupyter.log').read_text()[-3000:]}")


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium that talks to loopback only."""
    program = chromium()
    assert program is not None, "no chromium"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"]
    async with async_playwright() as playwright:
        chrome = await playwright.chromium.launch(executable_path=program, args=quiet)
        try:
            yield chrome
        finally:
            await chrome.close()


class Notebook:
    """One notebook, open in a page of JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")

    @classmethod
    async def open(cls, lab: Lab, chrome: Browser, name: str, *, width: int = 1500, height: int = 1000) -> Notebook:
        """Open notebook `name` on a kernel that is ready."""
        await lab.start_kernel(name)
        page = await chrome.new_page(viewport={"width": width, "height": height})
        await page.goto(f"{lab.url}/lab/tree/{name}?token={lab.token}&reset")
        notebook = cls(page)
        await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        await page.locator('.jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(
            timeout=60_000
        )
        await asyncio.sleep(1)  # JupyterLab attaches the kernel's comms shortly after it shows idle, unannounced
        return notebook

    async def run_all(self, *, timeout: float = 120) -> None:
        """Press Run All and wait until the last cell has run; fail if a cell did.

        JupyterLab drops waiting cells when it loses its kernel for a moment, as on a busy machine; then press again.
        """
        for _ in range(3):
            await self._press_run_all()
            if await self._how_the_run_ends(timeout) != "dropped":
                break
        errors = self.page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')
        assert await errors.count() == 0, await errors.first.inner_text()

    async def _how_the_run_ends(self, timeout: float) -> str:
        """Return "done", "error", or "dropped" if for five seconds no cell waits and some have not run."""
        try:
            ending = await self.page.wait_for_function(HOW_THE_RUN_ENDS, timeout=timeout * 1000)
        except NotSeen:
            prompts = await self.cells.locator(".jp-InputPrompt").all_inner_texts()
            raise AssertionError(f"not run to the end in {timeout:.0f} s; the prompts are {prompts}") from None
        return str(await ending.json_value())

    async def _press_run_all(self) -> None:
        """Press Run All until the cells wait for their turn, "[*]": without its kernel yet, JupyterLab loses it."""
        for _ in range(8):
            with contextlib.suppress(NotSeen):  # a dialog came in between: the next round accepts it
                if await self.page.locator(".jp-Dialog").count():  # "Select Kernel": ours is the one it proposes
                    await self.page.locator(".jp-Dialog .jp-mod-accept").first.click(timeout=5000)
                await self.page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5000)
                await self.page.get_by_text("Run All Cells", exact=True).click(timeout=5000)
                await self.page.get_by_text("[*]:", exact=True).first.wait_for(timeout=5000)
                return
        raise AssertionError("Run All was pressed eight times, and no cell began to wait for its turn")

    def button(self, name: str) -> Locator:
        """The button whose text is `name`."""
        return self.page.get_by_role("button", name=name, exact=True)

    def line(self, label: str) -> Locator:
        """The line to type in that carries this label."""
        return self.page.get_by_label(label, exact=True)

    def log(self, name: str) -> Locator:
        """The log of the client `name` in a chat panel."""
        return self.page.get_by_role("log", name=f"log of {name}")
