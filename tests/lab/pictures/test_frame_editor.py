"""A frame is held in a real wire, changed and let go, and both logs say what a real server and client do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import serve

from chatlab import echo
from chatlab.echo import EchoServer
from chatlab.errors import HandshakeError
from chatlab.lab.pictures import frame_editor
from chatlab.lab.pictures.frame_editor import FrameEditor
from chatlab.lab.runtime import lab
from chatlab.lab.until import until


@pytest.fixture
async def server() -> AsyncIterator[EchoServer]:
    async with await echo.start_by_hand() as server:
        yield server


@pytest.fixture
async def editor(server: EchoServer) -> AsyncIterator[FrameEditor]:
    editor = await frame_editor(server.url)
    yield editor
    await editor.aclose()


FIRST, LENGTH, KEY, PAYLOAD = range(4)  # the parts of a client's frame


async def changed(editor: FrameEditor, part: int, octets: str, text: str = "Hello") -> None:
    """Send a text, change a part of its frame, and let it go."""
    await editor.send(text)
    editor.edit(part, octets)
    await editor.let_go()


async def test_a_held_frame_shows_its_parts_and_goes_on_unchanged(editor: FrameEditor) -> None:
    await editor.send("Hi")

    assert [(part["name"], part["hex"]) for part in editor.state["parts"]] == [
        ("FIN, RSV, opcode", "81"),
        ("MASK, length", "82"),
        ("masking key", "37 fa 21 3d"),
        ("payload", "7f 93"),
    ]
    assert (editor.client_log, editor.server_log) == (['sends TEXT "Hi"'], [])

    await editor.let_go()
    assert editor.client_log == ['sends TEXT "Hi"', 'receives TEXT "Hi"']
    assert editor.server_log == ['receives TEXT "Hi"', 'sends TEXT "Hi"']


async def test_a_changed_key_changes_every_fourth_letter(editor: FrameEditor) -> None:
    await changed(editor, KEY, "36 fa 21 3d")

    assert editor.client_log[-1] == 'receives TEXT "Ielln"'


@pytest.mark.parametrize(
    ("part", "octets", "code", "reason"),
    [
        (FIRST, "83", 1002, "opcode 3 is reserved"),
        (LENGTH, "05", 1002, "TEXT frame from the client is not masked"),
        (PAYLOAD, "00 00 00 00 00", 1007, "text is not UTF-8"),
    ],
)
async def test_a_broken_frame_closes_the_connection_on_both_sides(
    editor: FrameEditor, part: int, octets: str, code: int, reason: str
) -> None:
    await changed(editor, part, octets)

    assert any(line.startswith(f'sends CLOSE code {code}, reason "{reason}') for line in editor.server_log)
    assert editor.client_log[-2].startswith(f'receives CLOSE code {code}, reason "{reason}')
    assert editor.client_log[-1] == f"is closed, with code {code}"
    assert editor.state["status"] == "The connection has ended. Send opens a new one."

    await changed(editor, FIRST, "81")
    assert editor.client_log == ['sends TEXT "Hello"', 'receives TEXT "Hello"']


async def test_bytes_that_were_announced_are_taken_from_the_next_frame(editor: FrameEditor) -> None:
    await changed(editor, LENGTH, "87")
    assert editor.server_log == ["waits for 2 more bytes"]
    assert editor.state["status"].startswith("The server still waits.")

    await changed(editor, FIRST, "81", "Next")
    assert editor.server_log[1] == "receives TEXT not UTF-8: 48 65 6c 6c 6f 7b a5"  # 7b a5 is the header of "Next"
    assert editor.client_log[-1] == "is closed, with code 1007"


async def test_a_frame_without_fin_is_not_answered(editor: FrameEditor) -> None:
    await changed(editor, FIRST, "01")

    assert editor.server_log[-1] == "says nothing: it waits for the rest of the message, because FIN is 0"


async def test_an_answer_is_held_and_changed_too(editor: FrameEditor) -> None:
    editor.hold_answers = True
    await editor.send("Hello")
    await editor.let_go()
    assert editor.holder == "server"
    editor.edit(2, "4a 65 6c 6c 6f")
    await editor.let_go()
    assert editor.client_log[-1] == 'receives TEXT "Jello"'

    await editor.send("Hello")
    await editor.let_go()
    editor.edit(1, "85")
    await editor.let_go()
    assert editor.client_log[-1] == "closes with 1002: TEXT frame from the server is masked"


async def test_a_client_waits_for_bytes_that_an_answer_announces(editor: FrameEditor) -> None:
    editor.hold_answers = True
    await editor.send("Hello")
    await editor.let_go()
    editor.edit(1, "06")
    await editor.let_go()

    assert editor.client_log[-1] == "waits for 1 more byte"
    assert editor.state["status"].startswith("The client still waits.")


async def test_a_server_that_pings_does_not_give_up_while_a_frame_is_held() -> None:
    async with serve(echo.echo, "127.0.0.1", 0, ping_interval=0.1, ping_timeout=0.3, compression=None) as server:
        editor = await frame_editor(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/")
        await editor.send("Hello")
        pings = editor.wire.trace
        await until(lambda: len(pings.filter("websocket", "ping")) >= 8)  # twice the server's patience
        await editor.let_go()

        assert editor.client_log[-1] == 'receives TEXT "Hello"'
        # Neither the keep-alive is shown, nor the client's own Pongs, which waited behind its frame.
        assert editor.server_log == ['receives TEXT "Hello"', 'sends TEXT "Hello"']
        await editor.aclose()


async def test_undo_brings_back_the_bytes_as_they_were_sent(editor: FrameEditor) -> None:
    await editor.send("Hi")
    editor.edit(PAYLOAD, "00")
    editor.undo()

    assert editor.frame().hex(" ") == "81 82 37 fa 21 3d 7f 93"


async def test_bad_hex_is_answered_with_a_sentence_and_holds_the_frame(editor: FrameEditor) -> None:
    await editor.send("Hi")
    editor.edit(FIRST, "8")
    assert editor.state["parts"][FIRST]["mistake"].startswith("'8' is not hex")
    assert not editor.state["valid"]
    assert editor.frame().hex(" ") == "81 82 37 fa 21 3d 7f 93"  # the table shows the last valid reading
    with pytest.raises(ValueError, match="is not hex"):
        await editor.let_go()

    editor.edit(FIRST, "81")
    await editor.let_go()
    assert editor.client_log[-1] == 'receives TEXT "Hi"'


async def test_other_bad_input_is_answered_with_a_sentence(editor: FrameEditor) -> None:
    editor._handle({"do": "let-go"})
    await until(lambda: editor.state["status"] == "Nothing is held. Type a text and press Send first.")
    editor._handle({"do": "send", "text": "x" * 101})
    await until(lambda: editor.state["status"].startswith("The text has 101 letters"))
    await until(lambda: not editor.state["busy"])
    await editor.send("Hi")
    editor._handle({"do": "send", "text": "Hi"})
    await until(lambda: editor.state["status"] == "A frame is held already. Let it go first.")


async def test_a_new_connection_drops_the_held_frame(editor: FrameEditor, server: EchoServer) -> None:
    await editor.send("Hi")
    await editor.connect()

    await until(lambda: len(editor.wire.connections) == 1)
    assert list(editor.wire.trace.filter("websocket", "text", sender="server")) == []
    await changed(editor, FIRST, "81")
    assert editor.server_log == ['receives TEXT "Hello"', 'sends TEXT "Hello"']


async def test_a_server_that_stops_while_a_frame_is_held_is_named(editor: FrameEditor, server: EchoServer) -> None:
    await editor.send("Hi")
    await server.aclose()
    await editor.let_go()

    assert any("sends CLOSE code 1001" in line for line in editor.server_log)
    editor._handle({"do": "send", "text": "Hi"})
    await until(lambda: editor.state["status"].startswith("The server cannot be reached."))


async def test_without_a_server_there_is_an_error_and_nothing_stays_open(server: EchoServer) -> None:
    await server.aclose()
    with pytest.raises((OSError, HandshakeError)):
        await frame_editor(server.url)
    assert {task.get_name() for task in asyncio.all_tasks()} & {"reader-by-hand", "frame-editor"} == set()


async def test_started_again_the_first_editor_is_closed_with_its_connection(server: EchoServer) -> None:
    first = await lab.start("editor", frame_editor(server.url))
    await first.send("Hi")
    second = await lab.start("editor", frame_editor(server.url))

    assert (first.closed, first.wire.connections) == (True, [])
    await lab.stop("editor")
    assert (second.closed, second.wire.connections) == (True, [])


async def test_without_a_kernel_a_frame_is_a_table_without_a_port(editor: FrameEditor) -> None:
    data, __ = editor._repr_mimebundle_()

    assert "81 8c 37 fa 21 3d" in data["text/plain"]
    assert "masking key" in data["text/html"]
    assert "127.0.0.1" not in data["text/plain"] + data["text/html"]
