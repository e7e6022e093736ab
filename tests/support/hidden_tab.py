"""A hidden tab in a real Chromium, whose timers are throttled to once a minute, as after some minutes in hiding.

Playwright keeps all its pages visible, so this module uses the Chrome DevTools Protocol directly.
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

# Without this, timers are throttled to once a minute only after five hidden minutes.
THROTTLE_AFTER_ONE_SECOND = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"


class Tab:
    """A tab of the browser."""

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
        """Poll an expression from outside until it is true, because the page's own timers may be throttled."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(AssertionError):  # raised while the page is loading
                    if await self.evaluate(expression):
                        return
                await asyncio.sleep(0.1)

    async def hide(self) -> None:
        """Hide this tab behind another one."""
        async with ClientSession() as http, http.put(f"{self._browser}/json/new?about:blank") as answer:
            assert answer.status == 200
        await self.wait_for("document.visibilityState === 'hidden'")


@contextlib.asynccontextmanager
async def open_tab(program: str, folder: Path, url: str) -> AsyncIterator[Tab]:
    """Open `url` in a separate Chromium whose profile is in `folder`; yield the tab."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    process = await asyncio.create_subprocess_exec(
        program,
        *options,
        THROTTLE_AFTER_ONE_SECOND,
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
    """Return the port, which the browser writes into a file once it listens."""
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
