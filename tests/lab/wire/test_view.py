"""Every view has a plain text, escapes the wire's content, and can leave out what varies from run to run."""

from xml.etree import ElementTree

from chatlab.lab.wire.trace import Trace, WireRecord, dissect
from chatlab.lab.wire.view import in_words
from tests.support.heard import DIALOGUE, HELLO, MASKED_HELLO, REQUEST, text_frame, trace_of, upgraded_trace


def test_a_table_without_times_is_the_same_in_every_run() -> None:
    assert str(trace_of(*DIALOGUE).filter("websocket").table(times=False)) == (
        "who              layer      kind   what\n"
        'client → server  websocket  text   "Hello"\n'
        'server → client  websocket  text   "Hello"\n'
        'server → client  websocket  ping   "Hello"\n'
        'client → server  websocket  pong   "Hello"\n'
        "client → server  websocket  close  1000 (the purpose of the connection has been fulfilled)\n"
        "server → client  websocket  close  1000 (the purpose of the connection has been fulfilled)"
    )


def test_a_table_shows_times_and_sizes_by_default() -> None:
    lines = repr(trace_of(*DIALOGUE)).splitlines()
    assert lines[0].split() == ["seconds", "held", "ms", "who", "bytes", "layer", "kind", "what"]
    assert lines[4].split() == ["0.003000", "0.0", "client", "→", "server", "11", "websocket", "text", '"Hello"']


def test_a_table_marks_an_event_that_was_not_passed_on() -> None:
    trace = trace_of(*DIALOGUE[:2])
    trace.add(WireRecord(0.5, 1, "client", MASKED_HELLO, offset=len(REQUEST)))
    assert str(trace.table(times=False)).endswith('"Hello"  ✗ not passed on')


def test_a_long_table_shows_the_number_of_hidden_events() -> None:
    assert str(trace_of(*DIALOGUE).table(limit=2)).endswith("\n… 7 more")


def test_every_view_has_a_static_form() -> None:
    trace = trace_of(*DIALOGUE)
    assert set(trace._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert set(trace.hexdump(3)._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert set(trace.sequence()._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert "<script" not in trace._repr_mimebundle_()["text/html"]


def test_the_wires_content_cannot_inject_html() -> None:
    trace = upgraded_trace(("server", text_frame(b"<script>alert(1)</script>")))
    for text in (trace._repr_mimebundle_()["text/html"], trace.hexdump(-1)._repr_html_(), trace.sequence().svg()):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_the_hexdump_names_each_bit_field_of_a_frame_with_its_clause() -> None:
    dump = trace_of(*DIALOGUE).hexdump(3)
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


def test_a_hexdump_of_bytes_reads_them_as_a_frame() -> None:
    assert [field.name for field in dissect(HELLO).fields][-2:] == ["Payload len", "Payload data"]


def test_a_hexdump_names_the_rule_that_a_field_breaks() -> None:
    trace = upgraded_trace(("client", HELLO), ("server", b"\x81\x7e\x00\x05Hello"))
    problems = [{field.name: field.problem for field in dissect(event).fields if field.problem} for event in trace[-2:]]
    assert [list(each) for each in problems] == [["MASK"], ["Extended payload length"]]
    assert "✗" in str(dissect(trace[-1]))


def test_a_hexdump_of_a_compressed_frame_shows_the_inflated_content() -> None:
    trace = upgraded_trace(("server", b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), extensions="permessage-deflate")
    assert dissect(trace[-1]).fields[-1].meaning == 'inflated: "Hello"'


def test_a_sequence_picture_describes_itself_in_words() -> None:
    picture = trace_of(*DIALOGUE).filter("websocket", ("text", "close")).sequence()
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


def test_a_label_that_reaches_over_its_arrow_s_head_is_drawn_above_it() -> None:
    root = ElementTree.fromstring(trace_of(*DIALOGUE).filter("websocket", ("text", "close")).sequence().svg())
    name = "{http://www.w3.org/2000/svg}"
    heads = [
        min(float(point.split(",")[1]) for point in head.get("points", "").split())
        for head in root.iter(f"{name}polygon")
    ]
    labels = [text for text in root.iter(f"{name}text") if (text.text or "").startswith(("text", "close"))]
    long = [len(label.text or "") > 54 for label in labels]
    assert long == [False, False, True, True]
    descent = 3.0  # of letters such as p, at 12 points
    assert all(float(label.get("y", 0)) + descent < head for label, head in zip(labels[2:], heads[2:], strict=True))


def test_a_long_row_of_octets_may_wrap_and_the_bits_of_one_octet_may_not() -> None:
    rows = dissect(bytes.fromhex("81 14") + b"a" * 20)._repr_html_().split("<tr>")
    assert "white-space:nowrap" in next(row for row in rows if "1... ...." in row).partition("1... ....")[0]
    assert "white-space:normal" in next(row for row in rows if "61 61 61" in row).partition("61 61 61")[0]


def test_a_sequence_picture_ends_a_lost_event_with_a_cross() -> None:
    trace = trace_of(*DIALOGUE[:2])
    trace.add(WireRecord(0.5, 1, "client", MASKED_HELLO, offset=len(REQUEST)))
    trace.add(WireRecord(0.6, 0, "wire", note="half-open"))
    svg = trace.sequence().svg()
    assert "✗" in svg
    assert "— half-open —" in svg


def test_a_sequence_picture_of_no_events_is_valid() -> None:
    assert ElementTree.fromstring(Trace().sequence().svg()) is not None


def test_a_stomp_frame_has_an_arrow_only_without_its_websocket_frame() -> None:
    send = "SEND\ndestination:/topic/a\n\nx\0"
    trace = upgraded_trace(("client", text_frame(send.encode(), mask=b"1234")), subprotocol="v12.stomp")
    assert trace.filter("stomp").sequence().svg().count("<polygon") == 1
    assert trace.filter(("websocket", "stomp")).sequence().svg().count("<polygon") == 1


def test_a_redis_command_is_named_once() -> None:
    assert in_words("XADD", "XADD chat-stream * body 안녕") == "XADD chat-stream * body 안녕"
    assert in_words("MESSAGE", 'id:1 "안녕"') == 'MESSAGE id:1 "안녕"'
    assert in_words("ping", "") == "ping"
