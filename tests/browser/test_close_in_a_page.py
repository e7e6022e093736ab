"""What a page receives after its own `close()`: in Chromium nothing, though the server's messages are on their way."""

from playwright.async_api import Browser, expect

from chatlab.lab.experiments import lesson01

LATE = 20


async def test_a_page_receives_no_message_after_its_close_though_the_server_sent_them(chrome: Browser) -> None:
    server = await lesson01.start_late(LATE)
    page = await chrome.new_page()
    try:
        await page.goto(server.page)
        await expect(page.get_by_role("status")).to_have_text(
            "before close(): 1 · after close(): 0 · closed with 1000", timeout=20_000
        )
        assert server.sent == LATE
    finally:
        await page.close()
        await server.aclose()
