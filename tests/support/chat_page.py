"""The chat's page in a browser, as the tests open and use it."""

from __future__ import annotations

from playwright.async_api import Browser, Page, expect

# As behind a proxy that blocks upgrades, the socket closes before it opens.
NO_WEBSOCKET = """window.WebSocket = class extends WebSocket {
    constructor() { super(`${location.origin.replace("http", "ws")}/no`); }
}"""


async def open_page(chrome: Browser, url: str, *scripts: str, language: str = "en", **context: object) -> Page:
    """Open a new window in which an error of the page, or a breach of its policy, fails the test.

    `scripts` run before the page's own. `context` are options of Playwright's `new_context`.
    """
    page = await (await chrome.new_context(locale=language, **context)).new_page()  # type: ignore[arg-type]  # passed on
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    page.on("console", lambda message: _no_breach(message.text))
    for script in scripts:
        await page.add_init_script(script)
    await page.goto(url)
    return page


def _no_breach(text: str) -> None:
    assert "Content Security Policy" not in text, text


async def join(chrome: Browser, url: str, name: str, *scripts: str, language: str = "en") -> Page:
    """Open the page, join under `name`, and wait until it is connected."""
    page = await open_page(chrome, url, *scripts, language=language)
    await page.locator("#name").fill(name)
    await page.locator("#join button").click()
    await expect(page.locator("#state")).to_have_attribute("data-state", "online", timeout=15_000)
    return page


async def say(page: Page, text: str) -> None:
    """Send a message by the keyboard."""
    await page.get_by_role("textbox", name="Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def expect_contents(page: Page, *contents: str) -> None:
    """Wait until the log shows exactly these messages, all of them confirmed."""
    await expect(page.locator("#log .content")).to_have_text(list(contents))
    await expect(page.locator("#log .sending")).to_have_count(0)
