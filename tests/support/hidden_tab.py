"""A tab out of sight in a real Chromium, which then runs its timers once a minute, as it does after some minutes.

Playwright keeps all its pages in sight, so this talks to the browser itself (the Chrome DevTools Protocol).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from websockets.asyncio.client import ClientConnection, connect

# Without this the timers are slowed down to once a minute only after five minutes out of sight.
SOON = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"


class Tab:
    """One tab of the browser."""

    def __init__(self, websocket: ClientConnection, browser: str) -> None:
        self._websocket = websocket
        self._browser = browser
        self._numbers = itertools.count(1)

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol; return its result."""
        number = next(self._numbers)
        await self._websocket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(await self._websocket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = 20) -> None:
        """Wait until an expression is true; it is this side that looks, since the page's own timers may be slow."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(AssertionError):  # while the page is still being loaded
                    if await self.evaluate(expression):
                        return
                await asyncio.sleep(0.1)

    async def hide(self) -> None:
        """Put another tab in front."""
        async with ClientSession() as http, http.put(f"{self._browser}/json/new?about:blank") as answer:
            assert answer.status == 200
        await self.wait_for("document.visibilityState === 'hidden'")


@contextlib.asynccontextmanager
async def open_tab(program: str, folder: Path, url: str) -> AsyncIterator[Tab]:
    """A tab with the page at `url`, in a Chromium of its own that keeps its profile in `folder`."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    process = await asyncio.create_subprocess_exec(
        program,
        *options,
        SOON,
        "--remote-debugging-port=0",
        "--remote-allow-origins=*",
        f"--user-data-dir={folder}",
        url,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        browser = f"http://127.0.0.1:{await _port(folder / 'DevToolsActivePort')}"
        async with connect(await _page(browser, url), proxy=None, max_size=None) as websocket:
            yield Tab(websocket, browser)
    finally:
        process.terminate()
        await process.wait()


async def _port(file: Path) -> int:
    """The port that the browser writes into a file once it listens."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int((await asyncio.to_thread(file.read_text)).splitlines()[0])
            await asyncio.sleep(0.1)


async def _page(browser: str, url: str) -> str:
    async with asyncio.timeout(30), ClientSession() as http:
        while True:
            async with http.get(f"{browser}/json") as answer:
                for target in await answer.json():
                    if target["type"] == "page" and target["url"] == url:
                        return str(target["webSocketDebuggerUrl"])
            await asyncio.sleep(0.1)
