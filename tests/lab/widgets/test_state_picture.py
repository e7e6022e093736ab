"""The picture of the states shows the table, and the path of a connection."""

import xml.etree.ElementTree as ET

from chatlab.lab.widgets.state_picture import PLACES, TAKEN, StatePicture
from chatlab.websocket.connection import TRANSITIONS, Cause, Connection, State
from chatlab.websocket.frames import Side

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture: StatePicture) -> ET.Element:
    return ET.fromstring(picture.svg())


def words(picture: StatePicture) -> list[str]:
    return [element.text or "" for element in drawn(picture).iter(f"{SVG}text")]


def test_every_state_has_a_box() -> None:
    assert set(PLACES) == set(State)
    assert {state.name for state in State} <= set(words(StatePicture()))


def test_every_transition_has_an_arrow_with_its_cause() -> None:
    picture = StatePicture()
    pairs = {(before, after) for (before, cause), after in TRANSITIONS.items() if cause is not Cause.TCP_ENDED}

    assert (
        len(list(drawn(picture).iter(f"{SVG}path"))) == len(pairs) + 1
    )  # one more for the end of TCP, from every state
    labels = words(picture)
    for (before, cause), after in TRANSITIONS.items():
        assert any(cause.value in text for text in labels), (before, cause, after)


def test_the_text_has_a_line_for_each_transition() -> None:
    lines = str(StatePicture()).splitlines()

    assert len(lines) == len(TRANSITIONS)
    assert lines[0].split() == ["CONNECTING", "the", "handshake", "is", "agreed", "on", "→", "OPEN"]


def test_the_description_has_the_same_content_as_the_picture() -> None:
    picture = StatePicture()

    assert drawn(picture).findtext(f"{SVG}desc") == str(picture)
    assert picture._repr_mimebundle_()["text/plain"] == str(picture)


def test_the_path_of_a_connection_is_numbered() -> None:
    connection = Connection.opened(Side.CLIENT)
    connection.close(1000)
    connection.receive_eof()
    picture = StatePicture(connection.history)

    labels = words(picture)
    assert "1. the handshake is agreed on" in labels
    assert "2. a Close frame is sent" in labels
    assert "3. the TCP connection ends: possible in every state above" in labels
    assert "a Close frame arrives" in labels  # not taken, not numbered
    assert "\nThe way this connection went:\n1. " in str(picture)
    assert "2. a Close frame is sent → CLOSE_SENT" in str(picture)
    bold = [text for text in drawn(picture).iter(f"{SVG}text") if text.get("fill") == TAKEN]
    assert {text.text for text in bold} >= {"CONNECTING", "OPEN", "CLOSE_SENT", "CLOSED"}
    assert "ENDING" not in {text.text for text in bold}
