"""The chat panel on a real room, operated by clicks and Enter."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab import room
from chatlab.lab.clients import MemberState
from chatlab.lab.until import until
from chatlab.lab.widgets.panels import ChatPanel, LineToType, chat_panel, figures


@pytest_asyncio.fixture
async def server() -> AsyncIterator[room.RoomServer]:
    async with await room.start() as server:
        yield server


@pytest_asyncio.fixture
async def panel(server: room.RoomServer) -> AsyncIterator[ChatPanel]:
    panel = await chat_panel(server.url, ("가람", "Nuri"), stats=figures(server))
    yield panel
    await panel.aclose()


def button(panel: ChatPanel, text: str) -> object:
    return next(widget for widget in widgets_of(panel.box) if getattr(widget, "description", "") == text)


def widgets_of(widget: object) -> list[object]:
    children = [each for child in getattr(widget, "children", ()) for each in widgets_of(child)]
    return [widget, *children]


def click(panel: ChatPanel, text: str) -> None:
    button(panel, text).click()  # type: ignore[attr-defined]  # found by its text: the test knows that it is a button


async def shown(panel: ChatPanel, text: str) -> None:
    await until(lambda: any(getattr(each, "description", "") == text for each in widgets_of(panel.box)))


def type_into(panel: ChatPanel, label: str, text: str) -> None:
    """Type as the page does: Enter arrives first, and the text follows."""
    line = button(panel, label)
    line._handle_custom_msg({"event": "submit"}, [])  # type: ignore[attr-defined]  # called for the page's message
    line.value = text  # type: ignore[attr-defined]  # a line of text


async def test_enter_sends_the_text_and_clears_the_line(panel: ChatPanel) -> None:
    type_into(panel, "가람:", "안녕하세요")
    await panel["Nuri"].heard("Server received from 가람: 안녕하세요")
    assert button(panel, "가람:").value == ""  # type: ignore[attr-defined]  # a line of text


async def test_the_send_button_sends_the_text(panel: ChatPanel) -> None:
    button(panel, "Nuri:").value = "점심?"  # type: ignore[attr-defined]  # a line of text
    click(panel, "Send as Nuri")
    await panel["가람"].heard("점심?")


async def test_enter_on_an_unchanged_line_sends_it_after_a_moment() -> None:
    sent: list[str] = []
    line = LineToType(sent.append, description="x", placeholder="")
    line.widget.value = "typed before, then left"
    line.widget._handle_custom_msg({"event": "submit"}, [])
    await until(lambda: sent == ["typed before, then left"])


async def test_leaving_an_input_line_sends_nothing() -> None:
    sent: list[str] = []
    line = LineToType(sent.append, description="x", placeholder="")
    line.widget.value = "half a thought"
    await asyncio.sleep(LineToType.PATIENCE_SECONDS * 1.5)  # longer than the wait after Enter
    assert sent == []
    assert line.widget.value == "half a thought"


async def test_a_click_that_overtakes_its_text_waits_for_it() -> None:
    sent: list[str] = []
    line = LineToType(sent.append, description="x", placeholder="")
    line.enter()
    await asyncio.sleep(LineToType.PATIENCE_SECONDS)
    line.widget.value = "the kernel was busy"
    assert sent == ["the kernel was busy"]
    assert line.widget.value == ""


async def test_one_button_disconnects_and_connects_a_client(panel: ChatPanel) -> None:
    await shown(panel, "Disconnect 가람")
    click(panel, "Disconnect 가람")
    await panel["가람"].until(lambda: panel["가람"].state is MemberState.CLOSED)
    await shown(panel, "Connect 가람")
    click(panel, "Connect 가람")
    await panel["가람"].until(lambda: panel["가람"].state is MemberState.OPEN)


async def test_clients_are_added_and_removed_while_the_panel_runs(panel: ChatPanel) -> None:
    type_into(panel, "New client", "하늘")
    await panel["Nuri"].heard("* 하늘 joined (3 here)")
    click(panel, "Remove 하늘")
    await panel["Nuri"].heard("* 하늘 left (2 here)")
    assert [client.name for client in panel] == ["가람", "Nuri"]
    with pytest.raises(KeyError, match="nobody here is called '하늘'"):
        panel["하늘"]


async def test_a_name_in_use_is_refused_with_a_message(panel: ChatPanel) -> None:
    type_into(panel, "New client", "Nuri")
    await until(lambda: "'Nuri' is taken" in panel._error.value.replace("&#x27;", "'"))
    assert len(panel.clients) == 2


async def test_the_bar_shows_the_servers_metrics(panel: ChatPanel) -> None:
    await until(lambda: "<b>2</b> members" in panel._bar.value)


async def test_waiting_bytes_show_within_seconds_when_a_client_stops_reading() -> None:
    async with await room.start(rate=None, send_buffer=4096) as server:
        panel = await chat_panel(server.url, ("가람", "Nuri"), stats=figures(server), burst=65_536)
        panel["Nuri"].stop_reading()
        for __ in range(4):
            click(panel, "Send 65,536 bytes")
        await until(lambda: server.metrics().buffered > 65_536, timeout=5)
        await panel.aclose()


async def test_a_long_text_is_shown_in_part(panel: ChatPanel) -> None:
    panel["가람"].note("x" * 60_000)
    assert "x" * 60_000 in repr(panel)
    assert f"{'x' * 300} … 59,700 more characters" in panel._repr_html_()
    assert "x" * 301 not in panel._repr_html_()


async def test_the_stored_form_of_a_panel_has_the_texts_without_times(panel: ChatPanel) -> None:
    await panel["가람"].send("<b>굵게</b>")
    await panel["Nuri"].heard("<b>굵게</b>")
    bundle = panel._repr_mimebundle_()
    assert "  ← received Server received from 가람: <b>굵게</b>" in bundle["text/plain"].splitlines()
    assert "&lt;b&gt;굵게&lt;/b&gt;" in bundle["text/html"]
    assert " ms" not in bundle["text/plain"] + bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


async def test_quiet_waits_for_the_last_line_within_its_timeout(panel: ChatPanel) -> None:
    await panel["가람"].send("마지막")
    await panel.quiet()
    assert "Server received from 가람: 마지막" in panel["Nuri"].received
    async with asyncio.timeout(1):
        await panel.quiet(timeout=0)


async def test_a_closed_panel_leaves_no_client_and_no_task(panel: ChatPanel, server: room.RoomServer) -> None:
    await panel.aclose()
    await until(lambda: len(server.metrics().members) == 0)
    assert not panel._tasks


async def test_all_clients_are_closed_when_one_cannot_connect(server: room.RoomServer) -> None:
    with pytest.raises(OSError):
        await chat_panel([server.url, "ws://127.0.0.1:1/room"])
    await until(lambda: len(server.metrics().members) == 0)


async def test_each_name_needs_an_address() -> None:
    with pytest.raises(ValueError, match="1 addresses for 2 names"):
        await chat_panel(["ws://127.0.0.1:1/room"])
