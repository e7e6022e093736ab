"""The pictures of bits, handshakes and frames in JupyterLab on a small screen, clicked and typed on real servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.support.accessibility import NOTEBOOK, findings, tab_through
from tests.support.jupyter import Lab, Notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

SET_UP = """\
from chatlab import echo
from chatlab.lab.runtime import lab

by_hand = await lab.start("by hand", echo.start_by_hand())
library = await lab.start("library", echo.start())"""
BITS = """\
from chatlab.lab.pictures import header_bits

await lab.start("bits", header_bits(by_hand.url))"""


def field(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


async def shown(page: Page, name: str, pictures: Path) -> None:
    """Take a picture of the group called `name`, in the light and in the dark theme; nothing in it is cut off."""
    group = page.get_by_role("group", name=name)
    assert await group.evaluate("each => each.scrollWidth <= each.clientWidth")
    for theme in ("Dark", "Light"):
        await change_theme(page, f"JupyterLab {theme}")
        await group.screenshot(path=pictures / f"{name.split(',')[0].replace(' ', '-').lower()}-{theme.lower()}.png")
        assert await findings(page, within=NOTEBOOK) == []


async def change_theme(page: Page, theme: str) -> None:
    await page.get_by_role("menuitem", name="Settings", exact=True).click()
    await page.locator(".lm-Menu-itemLabel", has_text="Theme").first.hover()
    await page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
    await page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")


async def test_header_bits_are_flipped_and_sent_with_mouse_and_keyboard(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "bits", SET_UP, BITS)
    page, keyboard = notebook.page, notebook.page.keyboard
    group = page.get_by_role("group", name="The header, bit by bit")

    await notebook.button("Send").click()
    await expect(field(page, "payload")).to_contain_text('✔ The server sends back: "안녕 👋"')

    await notebook.button("MASK").click()
    await expect(notebook.button("MASK")).to_have_attribute("aria-pressed", "false")
    await notebook.button("Send").click()
    await expect(field(page, "MASK")).to_contain_text("✘ The server closes with 1002: TEXT frame from the client")

    await notebook.button("Right header").click()
    await notebook.button("FIN").focus()
    await keyboard.press("Space")
    await expect(field(page, "FIN")).to_contain_text("more frames of this message follow")
    await keyboard.press("ArrowRight")
    await expect(notebook.button("RSV1")).to_be_focused()
    await keyboard.press("d")  # JupyterLab deletes the cell at two of these
    await keyboard.press("d")
    await notebook.line("Text").fill("")
    await notebook.line("Text").press_sequentially("네, dd!")
    await keyboard.press("Enter")
    await expect(group.get_by_role("status").last).to_have_text(
        "Silence for 1 s: the server waits for the rest of the message."
    )
    await expect(field(page, "FIN")).to_contain_text("… Silence for 1 s")

    names = await tab_through(page, group)
    assert names[:2] == ["FIN", "RSV1"]
    assert names[-3:] == ["Text", "Send", "Right header"]
    assert all(names)
    await shown(page, "The header, bit by bit", pictures)


FORM = """\
from chatlab.lab.pictures import handshake_form

await lab.start("form", handshake_form(by_hand.url, library.url, names=("by hand", "library")))"""


async def test_a_handshake_is_typed_from_400_to_101(lab: Lab, chrome: Browser, pictures: Path) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "handshake", SET_UP, FORM)
    page, keyboard = notebook.page, notebook.page.keyboard
    group = page.get_by_role("group", name="A handshake, line by line")
    status = group.get_by_role("status").last

    await expect(status).to_have_text("by hand: 400 Bad Request; library: 400 Bad Request")
    await expect(notebook.line("Host")).to_have_attribute("aria-invalid", "true")
    await shown(page, "A handshake, line by line", pictures)

    for line, value, expected in (
        ("Host", "localhost", "426 Upgrade Required: Connection is 'keep-alive', without 'Upgrade'"),
        ("Connection", "Upgrade", "400 Bad Request: Sec-WebSocket-Key holds 5 bytes, not 16"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "426 Upgrade Required: WebSocket version '8'"),
        ("Sec-WebSocket-Version", "13", "403 Forbidden: pages of 'http://evil.example' may not connect here"),
    ):
        await notebook.line(line).fill("")
        await notebook.line(line).press_sequentially(value)  # without Enter: a pause is enough
        await expect(group.get_by_text(f"✘ by hand: {expected}")).to_be_visible()
        await expect(group.get_by_text(f"✘ library: {expected}")).to_be_visible()
    await notebook.line("Origin").fill("")
    await keyboard.press("Enter")
    await expect(status).to_contain_text("✔ 101: HTTP ends here.")
    await expect(group.get_by_text("✔ library: proves that it has read this key")).to_be_visible()

    names = await tab_through(page, group)
    assert names[:3] == ["Request line", "Host", "Upgrade"]
    assert names[-2:] == ["Origin", "Reset"]
    await group.screenshot(path=pictures / "a-handshake-accepted.png")
    await notebook.button("Reset").click()
    await expect(notebook.line("Origin")).to_have_value("http://evil.example")
    await expect(status).to_contain_text("400 Bad Request")
    await notebook.line("Request line").fill("GET  / HTTP/1.1")
    refused = group.get_by_text("✘ by hand: 400 Bad Request: not an HTTP request line")
    await expect(refused).to_be_visible()
    assert "'GET  / HTTP/1.1'" in await refused.inner_text(), "two spaces are seen as two"


EDITOR = """\
from chatlab.lab.pictures import frame_editor

await lab.start("editor", frame_editor(by_hand.url))"""


async def test_a_held_frame_is_changed_by_keyboard_and_both_sides_say_what_follows(
    lab: Lab, chrome: Browser, pictures: Path
) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "editor", SET_UP, EDITOR)
    page, keyboard = notebook.page, notebook.page.keyboard
    group = page.get_by_role("group", name="A hand in the wire")
    client, server = (group.get_by_role("log", name=name) for name in ("The client", "The server"))
    status = group.locator(":scope > [role=status]").last

    await notebook.line("Text").fill("Hello")
    await keyboard.press("Enter")
    await expect(status).to_have_text("The client's frame is held. Change a byte, then let it go.")
    await expect(notebook.line("FIN, RSV, opcode")).to_be_focused()
    await notebook.line("masking key").fill("36 fa 21 3d")
    await expect(field(page, "payload")).to_contain_text('"Ielln"')
    names = await tab_through(page, group)
    assert names[:4] == ["Text", "Send", "Hold answers too", "New connection"]
    assert names[4:10] == ["FIN, RSV, opcode", "MASK, length", "masking key", "payload", "Let go", "Undo changes"]
    assert all(names)
    await shown(page, "A hand in the wire", pictures)
    await notebook.button("Let go").focus()
    await keyboard.press("Enter")
    await expect(client).to_contain_text('receives TEXT "Ielln"')
    await expect(server).to_contain_text('sends TEXT "Ielln"')
    await expect(notebook.line("Text")).to_be_focused()

    await notebook.button("Send").click()
    await notebook.line("MASK, length").fill("8g")
    await expect(group.get_by_text("'8g' is not hex")).to_be_visible()
    await notebook.line("MASK, length").fill("87")
    await notebook.button("Let go").click()
    await expect(server).to_contain_text("waits for 2 more bytes")
    await notebook.button("New connection").click()
    await expect(status).to_have_text("A new connection is open. Type a text and press Send.")

    await notebook.line("Hold answers too").check()
    await notebook.button("Send").click()
    await notebook.line("FIN, RSV, opcode").fill("83")
    await notebook.button("Let go").click()
    await expect(group.get_by_text("Held, on its way to the client")).to_be_visible()
    await expect(field(page, "payload")).to_contain_text("code 1002")
    await notebook.button("Let go").click()
    await expect(client).to_contain_text("receives CLOSE code 1002")
    await expect(status).to_have_text("The connection has ended. Send opens a new one.")
    await group.screenshot(path=pictures / "a-hand-in-the-wire-ended.png")
    assert await findings(page, within=NOTEBOOK) == []


AGAIN = 'await lab.start("bits", header_bits(library.url, "again"))'


async def test_a_picture_that_was_started_again_says_that_it_is_closed(lab: Lab, chrome: Browser) -> None:
    notebook = await Notebook.of_cells(lab, chrome, "again", SET_UP, BITS, AGAIN)
    first, second = (notebook.page.get_by_role("group", name="The header, bit by bit").nth(n) for n in (0, 1))

    await expect(first).to_contain_text("This picture has been closed. Run its cell again to use it.")
    await expect(first.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    await second.get_by_role("button", name="Send", exact=True).click()
    await expect(second).to_contain_text('The server sends back: "again"')
