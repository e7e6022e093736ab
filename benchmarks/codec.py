"""How many STOMP frames a second our codec parses and serializes: `python benchmarks/codec.py [FRAME]`.

FRAME is a file with one MESSAGE frame; without it, one like those of the chat is made: six headers, a JSON body of 200
octets. Prints one JSON object, frames per second of this process's CPU time:

    parse         one frame a call, as one WebSocket message brings it
    parse32       32 frames in one piece
    dump          frame to octets
    parse+dump    both
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from chatlab.stomp.frames import Frame, Parser

SECONDS = 0.6
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


def main() -> None:
    raw = Path(sys.argv[1]).read_bytes() if sys.argv[1:] else FRAME.serialize()
    parser = Parser(version="1.2")

    def parse(data: bytes) -> Frame:
        frame = parser.feed(data)[0]
        assert isinstance(frame, Frame)
        return frame

    frame, chunk = parse(raw), raw * 32
    assert frame.serialize() == raw
    assert len(parser.feed(chunk)) == 32
    results = {
        "parse": rate(lambda: parser.feed(raw)),
        "parse32": rate(lambda: parser.feed(chunk), 32),
        "dump": rate(frame.serialize),
        "parse+dump": rate(lambda: parse(raw).serialize()),
    }
    print(json.dumps({name: round(figure) for name, figure in results.items()}))


if __name__ == "__main__":
    main()
