"""Lesson 03's recording of the cookies that travel with a WebSocket's handshake, measured anew in Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from chatlab.lab.experiments.lesson03 import cookies

KINDS = {
    "no SameSite": "",
    "Lax": "; SameSite=Lax",
    "Strict": "; SameSite=Strict",
    "None; Secure": "; SameSite=None; Secure",
}
OPEN = "url => new Promise(done => { new WebSocket(url).onmessage = event => done(event.data) })"


async def page(request: web.Request) -> web.Response:
    """Answer with a page that sets a cookie of each kind."""
    response = web.Response(text="<title>A page</title>", content_type="text/html")
    for number, attributes in enumerate(KINDS.values()):
        response.headers.add("Set-Cookie", f"kind{number}=1; Path=/{attributes}")
    return response


async def room(request: web.Request) -> web.WebSocketResponse:
    """Send the names of the cookies that came with the handshake."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(" ".join(request.cookies))
    await socket.close()
    return socket


@asynccontextmanager
async def site() -> AsyncIterator[int]:
    """Serve the page and the room; yield the port."""
    application = web.Application()
    application.router.add_get("/", page)
    application.router.add_get("/room", room)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, "127.0.0.1", 0)
        await listening.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser_page(program: str, folder: Path, *, third_party: bool) -> AsyncIterator[Page]:
    """Open a page in a profile that allows or blocks third-party cookies (1 is "block" in cookie_controls_mode)."""
    preferences = folder / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    preferences.write_text(json.dumps({"profile": {"cookie_controls_mode": 0 if third_party else 1}}))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder, executable_path=program, args=["--no-sandbox"]
        )
        try:
            yield await context.new_page()
        finally:
            await context.close()


async def sent_from(page: Page, url: str, *, port: int) -> dict[str, bool]:
    """Return which kinds of cookie come with the handshake that the page at `url` sends to the site at `port`."""
    await page.goto(url)
    names = str(await page.evaluate(OPEN, f"ws://127.0.0.1:{port}/room")).split()
    return {kind: f"kind{number}" in names for number, kind in enumerate(KINDS)}


@pytest.mark.long
async def test_the_cookies_of_a_handshake_are_those_that_the_lesson_has_recorded(program: str, tmp_path: Path) -> None:
    async with site() as ours, site() as other:
        async with browser_page(program, tmp_path / "allowed", third_party=True) as tab:
            await tab.goto(f"http://127.0.0.1:{ours}/")
            found = {
                "own page": await sent_from(tab, f"http://127.0.0.1:{ours}/", port=ours),
                "same site, another port": await sent_from(tab, f"http://127.0.0.1:{other}/", port=ours),
                "another site": await sent_from(tab, f"http://localhost:{other}/", port=ours),
            }
        async with browser_page(program, tmp_path / "blocked", third_party=False) as tab:
            await tab.goto(f"http://127.0.0.1:{ours}/")
            blocked = await sent_from(tab, f"http://localhost:{other}/", port=ours)
    assert found | {"another site, third-party cookies blocked": blocked} == cookies()["pages"]
