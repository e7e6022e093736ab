"""Every view says in plain text what it shows, escapes what the wire carried, and leaves out what varies if told to."""

from xml.etree import ElementTree

from chatlab.lab.wire.trace import Trace, WireRecord, dissect
from chatlab.lab.wire.view import in_words
from tests.support.heard import DIALOGUE, HELLO, MASKED_HELLO, REQUEST, heard, in_frame, upgraded


def test_the_table_in_plain_text_can_do_without_what_varies() -> None:
    assert str(heard(*DIALOGUE).filter("websocket").table(times=False)) == (
        "who              layer      kind   what\n"
        'client → server  websocket  text   "Hello"\n'
        'server → client  websocket  text   "Hello"\n'
        'server → client  websocket  ping   "Hello"\n'
        'client → server  websocket  pong   "Hello"\n'
        "client → server  websocket  close  1000 (the purpose of the connection has been fulfilled)\n"
        "server → client  websocket  close  1000 (the purpose of the connection has been fulfilled)"
    )


def test_the_table_has_times_and_sizes_when_it_is_shown() -> None:
    lines = repr(heard(*DIALOGUE)).splitlines()
    assert lines[0].split() == ["seconds", "held", "ms", "who", "bytes", "layer", "kind", "what"]
    assert lines[4].split() == ["0.003000", "0.0", "client", "→", "server", "11", "websocket", "text", '"Hello"']


def test_the_table_says_what_was_not_passed_on() -> None:
    trace = heard(*DIALOGUE[:2])
    trace.add(WireRecord(0.5, 1, "client", MASKED_HELLO, offset=len(REQUEST)))
    assert str(trace.table(times=False)).endswith('"Hello"  ✗ not passed on')


def test_a_long_table_says_how_much_more_there_is() -> None:
    assert str(heard(*DIALOGUE).table(limit=2)).endswith("\n… 7 more")


def test_every_view_has_a_static_form() -> None:
    trace = heard(*DIALOGUE)
    assert set(trace._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert set(trace.hexdump(3)._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert set(trace.sequence()._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert "<script" not in trace._repr_mimebundle_()["text/html"]


def test_what_was_said_on_the_wire_cannot_write_html() -> None:
    trace = upgraded(("server", in_frame(b"<script>alert(1)</script>")))
    for text in (trace._repr_mimebundle_()["text/html"], trace.hexdump(-1)._repr_html_(), trace.sequence().svg()):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_the_hexdump_names_each_bit_field_of_a_frame_with_its_clause() -> None:
    dump = heard(*DIALOGUE).hexdump(3)
    lines = str(dump).splitlines()
    assert lines[0] == "0000  81 85 37 fa 21 3d 7f 9f 4d 51 58                 ..7.!=..MQX"
    rows = [line.split() for line in lines[3:]]
    assert [row[:4] for row in rows[:5]] == [
        ["0", "1...", "....", "FIN"],
        ["0", ".0..", "....", "RSV1"],
        ["0", "..0.", "....", "RSV2"],
        ["0", "...0", "....", "RSV3"],
        ["0", "....", "0001", "opcode"],
    ]
    assert [row[0] for row in rows[5:]] == ["1", "1", "2-5", "6-10"]
    assert all("RFC 6455 §5" in line or "RFC 7692 §6" in line for line in lines[3:])
    assert '"Hello"' in lines[-1]


def test_the_hexdump_of_bytes_takes_them_for_a_frame() -> None:
    assert [field.name for field in dissect(HELLO).fields][-2:] == ["Payload len", "Payload data"]


def test_the_hexdump_says_at_the_field_which_rule_it_breaks() -> None:
    trace = upgraded(("client", HELLO), ("server", b"\x81\x7e\x00\x05Hello"))
    problems = [{field.name: field.problem for field in dissect(event).fields if field.problem} for event in trace[-2:]]
    assert [list(each) for each in problems] == [["MASK"], ["Extended payload length"]]
    assert "✗" in str(dissect(trace[-1]))


def test_the_hexdump_of_a_compressed_frame_says_what_it_inflates_to() -> None:
    trace = upgraded(("server", b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), extensions="permessage-deflate")
    assert dissect(trace[-1]).fields[-1].meaning == 'inflated: "Hello"'


def test_the_sequence_picture_says_in_words_what_it_draws() -> None:
    picture = heard(*DIALOGUE).filter("websocket", ("text", "close")).sequence()
    assert str(picture) == (
        "Sequence of 4 events between client, server:\n"
        'client → server: websocket text "Hello"\n'
        'server → client: websocket text "Hello"\n'
        "client → server: websocket close 1000 (the purpose of the connection has been fulfilled)\n"
        "server → client: websocket close 1000 (the purpose of the connection has been fulfilled)"
    )
    root = ElementTree.fromstring(picture.svg())
    name = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert root.findtext(f"{name}desc") == str(picture)
    assert len(root.findall(f"{name}polygon")) == 4
    texts = [text.text for text in root.findall(f"{name}text")]
    assert texts[:2] == ["client", "server"]


def test_the_sequence_picture_ends_a_lost_event_with_a_cross() -> None:
    trace = heard(*DIALOGUE[:2])
    trace.add(WireRecord(0.5, 1, "client", MASKED_HELLO, offset=len(REQUEST)))
    trace.add(WireRecord(0.6, 0, "wire", note="half-open"))
    svg = trace.sequence().svg()
    assert "✗" in svg
    assert "— half-open —" in svg


def test_the_sequence_picture_of_nothing_is_a_picture() -> None:
    assert ElementTree.fromstring(Trace().sequence().svg()) is not None


def test_a_stomp_frame_shown_without_the_websocket_frame_it_rides_on_has_an_arrow_of_its_own() -> None:
    send = "SEND\ndestination:/topic/a\n\nx\0"
    trace = upgraded(("client", in_frame(send.encode(), mask=b"1234")), subprotocol="v12.stomp")
    assert trace.filter("stomp").sequence().svg().count("<polygon") == 1
    assert trace.filter(("websocket", "stomp")).sequence().svg().count("<polygon") == 1


def test_a_command_of_redis_is_named_once() -> None:
    assert in_words("XADD", "XADD chat-stream * body 안녕") == "XADD chat-stream * body 안녕"
    assert in_words("MESSAGE", 'id:1 "안녕"') == 'MESSAGE id:1 "안녕"'
    assert in_words("ping", "") == "ping"
