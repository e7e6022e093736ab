"""The wire panel lists events, explains the selected one, and applies its controls to the wire."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ipywidgets as widgets
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import WebSocketException

from chatlab import echo as echo_server
from chatlab.lab.clients import MemberState
from chatlab.lab.until import until
from chatlab.lab.widgets.wire_panel import PARTS, TraceInspector, WirePanel, wire_and_client
from chatlab.lab.wire.trace import Trace
from chatlab.lab.wire.wire import Wire


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    server = await serve(echo, "127.0.0.1", 0, compression=None)
    async with server, Wire(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as wire:
        yield wire


@pytest.fixture
async def client(wire: Wire) -> AsyncIterator[ClientConnection]:
    async with connect(wire.url, compression=None, close_timeout=0.2) as client:
        yield client


def inside(widget: widgets.Widget) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


def control(panel: TraceInspector, description: str) -> Any:
    """Return the widget with that label."""
    return next(each for each in inside(panel.box) if getattr(each, "description", None) == description)


def text_of(panel: TraceInspector) -> str:
    return " ".join(each.value for each in inside(panel.box) if isinstance(each, widgets.HTML))


async def turn() -> None:
    """Let the loop run the submitted calls."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def redrawn(panel: WirePanel) -> None:
    panel.draw()
    await turn()


async def test_new_events_appear_in_the_list_automatically(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    listed = asyncio.Event()
    control(panel, "Events").observe(lambda change: listed.set(), "options")
    await client.send("Hello")
    await asyncio.wait_for(listed.wait(), 5)
    assert any('websocket text "Hello"' in label for label, _ in control(panel, "Events").options)
    panel.close()


async def test_the_selected_event_is_explained(wire: Wire, client: ClientConnection) -> None:
    await client.send("Hello")
    await client.recv()
    panel = WirePanel(wire)
    assert "Pick an event" in text_of(panel)
    control(panel, "Events").value = wire.trace.first(kind="text", sender="server").number
    shown = text_of(panel)
    for word in ("FIN", "opcode", "MASK", "Payload data", "RFC 6455 §5.2", "Hello"):
        assert word in shown
    panel.close()


async def test_buttons_move_through_the_events(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    events = list(wire.trace)
    control(panel, "Newest event").click()
    assert panel.picked == events[-1]
    control(panel, "Previous event").click()
    assert panel.picked == events[-2]
    control(panel, "Next event").click()
    control(panel, "Next event").click()
    assert panel.picked == events[-1]
    assert control(panel, "Events").value == events[-1].number
    panel.close()


async def test_a_selected_event_stays_selected_when_more_events_arrive(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    panel.pick(wire.trace.first(kind="request"))
    await client.send("Hello")
    await client.recv()
    await redrawn(panel)
    assert panel.picked is not None
    assert panel.picked.kind == "request"
    assert control(panel, "Events").value == panel.picked.number
    panel.close()


async def test_the_list_can_show_one_layer_only(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    control(panel, "Show").value = "http"
    assert [label.split(": ")[1].split()[:2] for label, _ in control(panel, "Events").options] == [
        ["http", "request"],
        ["http", "response"],
    ]
    panel.close()


async def test_sliders_change_the_line_of_the_chosen_side(wire: Wire) -> None:
    panel = WirePanel(wire)
    control(panel, "What is sent by").value = "server"
    control(panel, "Delay, ms").value = 200
    control(panel, "give or take, ms").value = 50
    control(panel, "Bandwidth").value = 1e4
    await turn()
    assert (wire.line["server"].delay, wire.line["server"].jitter, wire.line["server"].rate) == (0.2, 0.05, 1e4)
    assert wire.line["client"].clear
    await redrawn(panel)
    assert "what the server sends takes 200 ± 50 ms more and may take 10,000 bytes a second" in text_of(panel)
    panel.close()


async def test_sliders_follow_changes_that_a_cell_makes_to_the_wire(wire: Wire) -> None:
    panel = WirePanel(wire)
    wire.delay(0.5)
    await redrawn(panel)
    assert control(panel, "Delay, ms").value == 500
    control(panel, "Heal").click()
    await turn()
    await redrawn(panel)
    assert control(panel, "Delay, ms").value == 0
    assert wire.line["client"].clear
    assert [event.kind for event in wire.trace.filter("fault")] == ["delay 500 ms ± 0 ms", "heal"]
    panel.close()


@pytest.mark.parametrize(
    ("button", "note"),
    [
        ("Stall", "stall, what the client sends"),
        ("Resume", "resume, what the client sends"),
        ("Half-open", "half-open, what the client sends"),
        ("Reset", "reset"),
        ("Flip a bit", "flip 1 byte with 0x01 after 0, what the client sends"),
        ("Cut", "cut after 7 bytes, what the client sends"),
    ],
)
async def test_each_button_causes_its_fault(wire: Wire, button: str, note: str) -> None:
    panel = WirePanel(wire)
    control(panel, "What is sent by").value = "client"
    control(panel, "Cut after, bytes").value = 7
    control(panel, button).click()
    await turn()
    assert [event.kind for event in wire.trace.filter("fault")] == [note]
    panel.close()


@pytest.mark.parametrize(
    ("part", "arrived"),
    [("the opcode", 1002), ("the length", 1002), ("the mask", "Ielln"), ("the text", "Iello")],
)
async def test_a_bit_flips_in_the_part_that_is_chosen(
    wire: Wire, client: ClientConnection, part: str, arrived: str | int
) -> None:
    panel = WirePanel(wire)
    control(panel, "A flipped bit is in").value = dict(PARTS)[part]
    control(panel, "Flip a bit").click()
    await turn()
    await client.send("Hello")
    if part == "the length":  # one octet fewer: the last one begins the next frame
        await client.send("Hello")
    if isinstance(arrived, str):
        assert await client.recv() == arrived
    else:
        await asyncio.wait_for(client.wait_closed(), 5)
        assert client.close_code == arrived
    panel.close()


async def test_only_layers_that_the_trace_has_are_offered(wire: Wire) -> None:
    panel = WirePanel(wire)
    names = [name for name, __ in control(panel, "Show").options]
    assert names == ["everything"]
    async with connect(wire.url, compression=None) as client:
        await client.send("Hello")
        await client.recv()
        await redrawn(panel)
        names = [name for name, __ in control(panel, "Show").options]
        assert names == ["everything", "tcp", "http", "websocket"]
    panel.close()


async def test_more_faults_are_shown_on_request(wire: Wire) -> None:
    panel = WirePanel(wire)
    hidden = next(each for each in inside(panel.box) if control(panel, "Cut") in inside_of(each))
    assert hidden.layout.display == "none"
    control(panel, "More faults").value = True
    assert hidden.layout.display is None
    panel.close()


def inside_of(widget: widgets.Widget) -> list[Any]:
    """Return all that is in a box that can be hidden; nothing for any other widget."""
    return list(inside(widget)) if getattr(getattr(widget, "layout", None), "display", None) == "none" else []


async def test_a_client_and_its_wire_are_in_one_panel() -> None:
    async with await echo_server.start_by_hand() as server:
        panel = await wire_and_client(server.url)
        await panel.client.send("안녕 👋")
        await panel.client.heard("안녕 👋")
        panel.pick(panel.wire.trace.first("websocket", "text"))
        for form in (repr(panel), panel._repr_html_()):
            assert "안녕 👋" in form
            assert "Masking-key" in form
        await panel.aclose()
        assert panel.client.state is MemberState.CLOSED
        assert not panel.wire.connections


async def test_a_panel_whose_client_cannot_connect_leaves_no_wire() -> None:
    tasks = asyncio.all_tasks()
    with pytest.raises((OSError, WebSocketException)):
        await wire_and_client("ws://127.0.0.1:1/")
    await until(lambda: asyncio.all_tasks() <= tasks)


async def test_a_fault_can_wait_for_the_next_event_of_a_kind(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    control(panel, "Strike").value = "text"
    control(panel, "Reset").click()
    await turn()
    assert not wire.trace.filter("fault")
    await client.send("Hello")
    await asyncio.wait_for(client.wait_closed(), 5)
    assert client.close_code == 1006
    panel.close()


async def test_a_closed_panel_stops_following_the_wire(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    panel.close()
    before = control(panel, "Events").options
    await client.send("Hello")
    await client.recv()
    await asyncio.sleep(0.2)
    assert control(panel, "Events").options == before


async def test_every_control_of_the_wire_panel_has_a_label(wire: Wire) -> None:
    panel = WirePanel(wire)
    for each in inside(panel.box):
        if not isinstance(each, widgets.Box | widgets.HTML | widgets.Layout):
            assert each.description
    assert 'role="status"' in text_of(panel)
    panel.close()


async def test_the_stored_form_is_a_table_that_is_the_same_in_every_run(wire: Wire, client: ClientConnection) -> None:
    panel = WirePanel(wire)
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"] == (
        "The wire\n"
        "who              layer  kind      what\n"
        "client → server  tcp    open\n"
        "client → server  http   request   GET / HTTP/1.1, asks to upgrade to websocket\n"
        "server → client  http   response  HTTP/1.1 101 Switching Protocols"
    )
    assert "<table>" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    panel.close()


def test_a_stored_trace_is_inspected_without_a_wire() -> None:
    panel = TraceInspector(Trace())
    control(panel, "Newest event").click()
    assert panel.picked is None
    assert "Pick an event" in text_of(panel)
