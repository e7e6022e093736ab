"""A trace is a sequence of events that can be filtered, saved and loaded."""

from pathlib import Path

import pytest

from chatlab.lab.wire.trace import Trace, WireRecord
from tests.support.heard import DIALOGUE, trace_of


def test_a_trace_is_a_sequence_that_can_be_filtered() -> None:
    trace = trace_of(*DIALOGUE)
    assert len(trace) == 9
    assert trace[3].kind == "text"
    assert [event.number for event in trace[-2:]] == [7, 8]
    assert [event.sender for event in trace.filter("websocket", ("ping", "pong"))] == ["server", "client"]
    assert len(trace.filter(sender="client", where=lambda event: event.size > 10)) == 3
    assert trace.first(kind="close").sender == "client"
    with pytest.raises(LookupError, match="9"):
        trace.first(kind="SEND")


# --- files


def test_a_trace_is_loaded_from_its_file_unchanged(tmp_path: Path) -> None:
    trace = trace_of(*DIALOGUE, cut="byte by byte")
    trace.add(WireRecord(1.0, 0, "wire", note="half-open"))
    trace.add(WireRecord(1.1, 2, "client", note="open", ends=("앤", "chat")))
    trace.add(WireRecord(1.2, 2, "client", bytes(range(256))))
    trace.save(tmp_path / "trace.jsonl")
    again = Trace.load(tmp_path / "trace.jsonl")
    assert again.records == trace.records
    assert list(again) == list(trace)
    assert again[-1].source == "앤"


def test_a_saved_trace_is_legible(tmp_path: Path) -> None:
    trace_of(DIALOGUE[0]).save(tmp_path / "trace.jsonl")
    lines = (tmp_path / "trace.jsonl").read_text().splitlines()
    assert lines[0] == '{"chatlab trace": 1}'
    assert lines[1] == '{"time": 0.0, "connection": 1, "sender": "client", "note": "open"}'
    assert '"data": "GET /chat HTTP/1.1\\r\\nHost: example.com' in lines[2]


def test_loading_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"some": "thing"}\n')
    with pytest.raises(ValueError, match="not a chatlab trace"):
        Trace.load(tmp_path / "other.jsonl")
