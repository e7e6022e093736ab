"""Compare how many STOMP frames per second chatlab's codec parses and serializes with stomp-py, stompman and coilmq.

    python -m benchmarks.codec              a table of the installed codecs; the development environment lacks coilmq
    python -m benchmarks.codec FRAME        chatlab's alone, on the MESSAGE frame in that file, as one JSON object

The frame is like those of the chat: six headers and a JSON body of 200 octets. The figures are frames per second of
this process's CPU time. The codecs take turns, and the table shows the median of the rounds:

    parse         one frame per call, as in one WebSocket message
    parse32       32 frames in one call
    dump          from frame to octets
    parse+dump    both
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script too

from chatlab.stomp.frames import Frame, Parser

SECONDS = 0.4
ROUNDS = 5
OURS = "chatlab"
BODY = json.dumps({"type": "CHAT", "sender": "alice", "content": "x" * 150}).encode()
FRAME = Frame(
    "MESSAGE",
    (
        ("subscription", "sub-0"),
        ("message-id", "7f3a-0000001234"),
        ("destination", "/topic/public"),
        ("content-type", "application/json"),
        ("redelivered", "false"),
        ("content-length", str(len(BODY))),
    ),
    BODY,
)


# --- The codecs ---


class Codec(NamedTuple):
    """The functions of one library: octets of one frame or of many to its frames, and one of its frames to octets."""

    parse: Callable[[bytes], Sequence[Any]]
    parse_many: Callable[[bytes], Sequence[Any]]
    dump: Callable[[Any], bytes]


def chatlab() -> Codec:
    feed = Parser(version="1.2").feed
    return Codec(feed, feed, lambda frame: frame.serialize())


def stomp_py() -> Codec:
    # Its transport splits the input at NUL; of a single frame, only the NUL at its end has to be removed.
    utils = import_module("stomp.utils")
    parse, convert = utils.parse_frame, utils.convert_frame
    return Codec(
        lambda data: [parse(data[:-1])],
        lambda data: [parse(each) for each in data.split(b"\0") if each],
        lambda frame: b"".join(convert(frame)),
    )


def stompman() -> Codec:
    serde = import_module("stompman.serde")
    chunk, dump = serde.FrameParser().parse_frames_from_chunk, serde.dump_frame
    return Codec(lambda data: list(chunk(data)), lambda data: list(chunk(data)), dump)


def coilmq() -> Codec:
    buffer = import_module("coilmq.util.frames").FrameBuffer()

    def feed(data: bytes) -> list[Any]:
        buffer.append(data)
        frames = []
        while (frame := buffer.extract_frame()) is not None:
            frames.append(frame)
        return frames

    return Codec(feed, feed, lambda frame: frame.pack())


PEERS = {OURS: chatlab, "stomp-py": stomp_py, "stompman": stompman, "coilmq": coilmq}


def installed() -> dict[str, Codec]:
    """Return the codecs that can be imported; print what the others need."""
    codecs = {}
    for name, load in PEERS.items():
        try:
            codecs[name] = load()
        except ImportError as error:
            print(f"skipping {name} ({error}); pip install {name}", file=sys.stderr)
    return codecs


# --- The measurement ---


def rate(call: Callable[[], object], frames: int = 1) -> float:
    """Call for SECONDS of CPU time; return frames per second."""
    calls, began = 1, time.process_time()
    while time.process_time() - began < 0.01:  # enough calls in a row to make the cost of reading the clock negligible
        calls *= 2
        began = time.process_time()
        for _ in range(calls):
            call()
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        for _ in range(calls):
            call()
        done += calls
    return done * frames / spent


def measure(codec: Codec, raw: bytes) -> dict[str, float]:
    """Measure every figure once; raise AssertionError if a parsed frame is not the one serialized."""
    parse, parse_many, dump = codec
    (frame,) = parse(raw)
    headers = dict(frame.headers)
    assert headers["message-id"] == "7f3a-0000001234", headers
    chunk = raw * 32
    assert len(parse_many(chunk)) == 32
    assert len(parse(bytes(dump(frame)))) == 1
    return {
        "parse": rate(lambda: parse(raw)),
        "parse32": rate(lambda: parse_many(chunk), 32),
        "dump": rate(lambda: dump(frame)),
        "parse+dump": rate(lambda: dump(parse(raw)[0])),
    }


def table(raw: bytes) -> str:
    """Return a table of each codec's median figures, and of the ratio of chatlab's to the best other."""
    codecs = installed()
    rounds = [{name: measure(codec, raw) for name, codec in codecs.items()} for _ in range(ROUNDS)]
    kinds = list(rounds[0][OURS])
    lines = [f"| | {' | '.join(kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for name in codecs:
        medians = [statistics.median(each[name][kind] for each in rounds) for kind in kinds]
        lines.append(f"| {name} | {' | '.join(f'{figure:,.0f}' for figure in medians)} |")
    if peers := [name for name in codecs if name != OURS]:
        ratios = [
            statistics.median(each[OURS][kind] / max(each[name][kind] for name in peers) for each in rounds)
            for kind in kinds
        ]
        lines.append(f"| {OURS}, ratio to the best other | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:]:
        figures = measure(chatlab(), Path(sys.argv[1]).read_bytes())
        print(json.dumps({name: round(figure) for name, figure in figures.items()}))
    else:
        print(table(FRAME.serialize()))


if __name__ == "__main__":
    main()
