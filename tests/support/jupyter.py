"""A real JupyterLab in a real browser: start the server, open a notebook, run its cells, use its widgets.

`Lab` is a JupyterLab server on a free loopback port, with a copy of the notebooks: with settings for tests
(`jupyter_lab`), or as a learner starts it for the first time (`first_start`). `Notebook` is one of them open in a page
of the Chromium on PATH, which Playwright controls.
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

import nbformat
from playwright.async_api import Browser, Locator, Page, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeout
from websockets.asyncio.client import connect

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SETTINGS = {
    # Keep every cell in the page, even those that are scrolled out of view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

RUN_STATE = """() => {
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
    """Return the path of the browser, or None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHATLAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Lab:
    """A JupyterLab server."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        self.url = url
        self.token = token

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request to Jupyter's REST API; return the JSON of the answer."""
        request = urllib.request.Request(  # always a loopback address
            f"{self.url}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    async def start_kernel(self, path: str) -> str:
        """Start a kernel for the notebook at `path`, wait until it has been idle for a second, and return its id.

        JupyterLab drops a Run All that is pressed while the kernel is starting.
        """
        session = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        kernel: str = (await asyncio.to_thread(self.request, "POST", "/api/sessions", session))["kernel"]["id"]
        async with asyncio.timeout(60):
            await self._wait_for_info(kernel)
            idle_since: float | None = None
            while idle_since is None or time.monotonic() - idle_since < 1:
                await asyncio.sleep(0.1)
                state = (await asyncio.to_thread(self.request, "GET", f"/api/kernels/{kernel}"))["execution_state"]
                idle_since = (idle_since or time.monotonic()) if state == "idle" else None
        return kernel

    async def _wait_for_info(self, kernel: str) -> None:
        """Request the kernel's info and wait for it: without a request, the kernel's state stays "starting"."""
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
    """Run a JupyterLab with a copy of the notebooks in `folder`; end it and its kernels on exit."""
    shutil.copytree(NOTEBOOKS, folder / "notebooks", dirs_exist_ok=True)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.news_url="]
    with _running(command, folder, folder / "notebooks") as lab:
        yield lab


@contextlib.contextmanager
def first_start(folder: Path) -> Iterator[Lab]:
    """Run `chatlab lab` in `folder` without any settings, as on a learner's machine; end it on exit."""
    shutil.copytree(NOTEBOOKS, folder / "notebooks", dirs_exist_ok=True)
    with _running([sys.executable, "-m", "chatlab.cli", "lab"], folder, folder) as lab:
        yield lab


@contextlib.contextmanager
def _running(command: list[str], folder: Path, below: Path) -> Iterator[Lab]:
    """Run a server with its data in `folder`, started in the folder `below`."""
    token = "test"
    options = ["--no-browser", "--port=0", "--ip=127.0.0.1", f"--IdentityProvider.token={token}"]
    options += ["--ServerApp.port_retries=0", *([] if "lab" in command else ["--allow-root"])]
    environment = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "CHATLAB_HOME": str(folder / "home"),
    }
    log = (folder / "jupyter.log").open("w")
    server = subprocess.Popen([*command, *options], cwd=below, env=environment, stdout=log, stderr=log)
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
    """Return the address in the server's runtime file once the server answers there."""
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
    """Run a headless Chromium without background connections."""
    program = chromium()
    assert program is not None, "no chromium"
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync"]
    async with async_playwright() as playwright:
        chrome = await playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield chrome
        finally:
            await chrome.close()


class Notebook:
    """A notebook that is open in a page of JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")

    @classmethod
    async def open(cls, lab: Lab, chrome: Browser, name: str, *, width: int = 1500, height: int = 1000) -> Notebook:
        """Open the notebook `name` with a kernel that is ready."""
        await lab.start_kernel(name)
        page = await chrome.new_page(viewport={"width": width, "height": height})
        await page.goto(f"{lab.url}/lab/tree/{name}?token={lab.token}&reset")
        notebook = cls(page)
        await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        await page.locator('.jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(
            timeout=60_000
        )
        await asyncio.sleep(1)  # JupyterLab attaches the kernel's comms shortly after it shows idle, without an event
        return notebook

    @classmethod
    async def of_cells(cls, lab: Lab, chrome: Browser, name: str, *sources: str) -> Notebook:
        """Make a notebook of these cells, open it on a screen of 1024 pixels, and run it."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "notebooks" / f"{name}.ipynb")
        notebook = await cls.open(lab, chrome, f"{name}.ipynb", width=1024)
        await notebook.run_all()
        return notebook

    async def run_all(self, *, timeout: float = 120) -> None:
        """Press Run All and wait until the last cell has run; raise AssertionError if a cell failed.

        JupyterLab drops waiting cells when it loses its kernel for a moment, as on a busy machine. In that case press
        Run All again.
        """
        for _ in range(3):
            await self._press_run_all()
            if await self._run_state(timeout) != "dropped":
                break
        errors = self.page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')
        assert await errors.count() == 0, await errors.first.inner_text()

    async def _run_state(self, timeout: float) -> str:
        """Return "done", "error", or "dropped" if no cell has waited for five seconds and some have not run."""
        try:
            state = await self.page.wait_for_function(RUN_STATE, timeout=timeout * 1000)
        except PlaywrightTimeout:
            prompts = await self.cells.locator(".jp-InputPrompt").all_inner_texts()
            raise AssertionError(f"not all cells ran in {timeout:.0f} s; the prompts are {prompts}") from None
        return str(await state.json_value())

    async def _press_run_all(self) -> None:
        """Press Run All until cells are waiting ("[*]"): JupyterLab drops it until the kernel is attached."""
        for _ in range(8):
            with contextlib.suppress(PlaywrightTimeout):  # a dialog opened in between; the next attempt accepts it
                if await self.page.locator(".jp-Dialog").count():  # "Select Kernel", which proposes our kernel
                    await self.page.locator(".jp-Dialog .jp-mod-accept").first.click(timeout=5000)
                await self.page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5000)
                await self.page.get_by_text("Run All Cells", exact=True).click(timeout=5000)
                await self.page.get_by_text("[*]:", exact=True).first.wait_for(timeout=5000)
                return
        raise AssertionError("Run All was pressed eight times, and no cell is waiting")

    def button(self, name: str) -> Locator:
        """Return the button with this text."""
        return self.page.get_by_role("button", name=name, exact=True)

    def line(self, label: str) -> Locator:
        """Return the input field with this label."""
        return self.page.get_by_label(label, exact=True)

    def log(self, name: str) -> Locator:
        """Return the log of the client `name` in a chat panel."""
        return self.page.get_by_role("log", name=f"log of {name}")
