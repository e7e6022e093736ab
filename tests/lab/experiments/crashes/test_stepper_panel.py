"""The stepper's panel: its buttons, pressed on real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.crashes.one_message import Stepper
from chatlab.lab.experiments.crashes.stepper_panel import StepperPanel, stepper_panel
from chatlab.lab.until import until


@pytest_asyncio.fixture
async def panel(fresh_valkey: Engine) -> AsyncIterator[StepperPanel]:
    async with await Stepper(fresh_valkey).start() as stepper:
        panel = await stepper_panel(stepper)
        yield panel
        await panel.aclose()


def click(panel: StepperPanel, text: str) -> None:
    buttons = [button for row in panel.box.children[:3] for button in row.children]
    next(button for button in buttons if button.description == text).click()


async def press(panel: StepperPanel, text: str) -> None:
    """Press a button, and wait until its step is done."""
    click(panel, text)
    await until(lambda: panel._busy, timeout=1)
    await until(lambda: not panel._busy, timeout=30)


async def test_buttons_stop_a_message_kill_the_instance_and_send_again_and_the_picture_shows_where_it_is(
    panel: StepperPanel,
) -> None:
    assert panel.way == "가람 ── instance 1 ── Redis ── instance 2 ── Nuri"
    await press(panel, "Send, hold at XADD")
    assert panel.way == "가람 ── instance 1 ✉→ Redis ── instance 2 ── Nuri"
    await press(panel, "Kill the instance")
    assert panel.state == "Nothing is held."
    await press(panel, "Send again, same id")
    assert repr(panel).splitlines()[-1].split("  ")[0] == "sent again, same id"
    assert panel._table.value.count("<tr>") == 4  # the head, and a row for each step
    await press(panel, "Send, hold at reply")
    assert panel.way == "가람 ── instance 1 ←✉ Redis ── instance 2 ── Nuri"
    await press(panel, "Send, hold at RECEIPT")  # the one before goes on
    assert panel.way == "가람 ←✉ instance 1 ── Redis ── instance 2 ── Nuri"
    assert "The RECEIPT is held on its way to the sender." in panel._way.value
    assert panel._repr_mimebundle_()["text/plain"] == repr(panel)


async def test_a_button_pressed_too_early_says_what_is_missing(panel: StepperPanel) -> None:
    click(panel, "Let it go")
    await until(lambda: "<p role='alert'>there is no message yet; send one first</p>" in panel._way.value)
