"""How many STOMP frames a second our codec parses and serializes, beside stomp-py's, stompman's and coilmq's.

    python -m benchmarks.codec              a table of all that are installed; the development environment has no coilmq
    python -m benchmarks.codec FRAME        ours alone on the MESSAGE frame in that file, as one JSON object

The frame is like those of the chat: six headers, a JSON body of 200 octets. Figures are frames per second of this
process's CPU time; codecs take turns, and of the rounds the median is shown:

    parse         one frame a call, as one WebSocket message brings it
    parse32       32 frames in one piece
    dump          frame to octets
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
    """One library's: octets of one frame, or of many, to its own frames, and a frame of its own to octets."""

    parse: Callable[[bytes], Sequence[Any]]
    parse_many: Callable[[bytes], Sequence[Any]]
    dump: Callable[[Any], bytes]


def chatlab() -> Codec:
    feed = Parser(version="1.2").feed
    return Codec(feed, feed, lambda frame: frame.serialize())


def stomp_py() -> Codec:
    # Its transport splits what comes in at NUL; of one frame in a message only that is to be taken off.
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
    """Those that can be imported; what the others need is said."""
    codecs = {}
    for name, load in PEERS.items():
        try:
            codecs[name] = load()
        except ImportError as error:
            print(f"{name} is left out ({error}); pip install {name}", file=sys.stderr)
    return codecs


# --- Measuring ---


def rate(call: Callable[[], object], frames: int = 1) -> float:
    """Call for SECONDS of CPU time; return frames per second."""
    calls, began = 1, time.process_time()
    while time.process_time() - began < 0.01:  # so many calls at once that looking at the clock costs nothing
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
    """One round: every figure once. AssertionError if what is parsed is not what was sent."""
    parse, parse_many, dump = codec
    (frame,) = parse(raw)
    told = dict(frame.headers)
    assert told["message-id"] == "7f3a-0000001234", told
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
    """All codecs in turns; each figure's median, and how many times the best peer's ours is."""
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
        lines.append(f"| {OURS}, times the best other | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:]:
        figures = measure(chatlab(), Path(sys.argv[1]).read_bytes())
        print(json.dumps({name: round(figure) for name, figure in figures.items()}))
    else:
        print(table(FRAME.serialize()))


if __name__ == "__main__":
    main()
