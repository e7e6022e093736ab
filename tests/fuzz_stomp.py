"""Throw random and corrupted STOMP frames at the parser and the session: `python tests/fuzz_stomp.py N`.

Each case must end in frames or in a documented error, hold no more memory than its limits, and give the same result in
one piece as in many; frames must survive a round trip. A case depends only on its number: the number of a failing case
is printed, and `python tests/fuzz_stomp.py 1 NUMBER` runs it again.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script too

from chatlab.errors import StompError
from chatlab.stomp.events import Commit, Connect, Event, Nack, Subscribe
from chatlab.stomp.frames import VERSIONS, Frame, Heartbeat, Limits, MessageFrame, Parser
from chatlab.stomp.session import ServerSession

LIMITS = Limits(
    max_frame=400,
    max_headers=8,
    max_header=80,
    max_subscriptions=4,
    max_transactions=3,
    max_transaction=600,
    max_transaction_frames=5,
    max_unacknowledged=4,
)
INTERESTING = [
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b":",
    b"\\",
    b"\\c",
    b"\\r",
    b"\\t",
    b"\xff",
    "안".encode(),
    b"\n\r\n",
]
INTERESTING += [b"content-length:3\n", b"content-length:99999\n", b"transaction:a\n", b"receipt:r\n"]
NEVER_ESCAPED = ("CONNECT", "STOMP", "CONNECTED")
COMMANDS = ["SEND", "SEND", "SEND", "SUBSCRIBE", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT"]
COMMANDS += ["DISCONNECT", "CONNECT", "STOMP", "MESSAGE", "NOPE"]
HEADERS = {
    "destination": ["/t", "/u", "/queue/a:b", "/안녕"],
    "id": ["1", "2", "3", "a:b\n"],
    "ack": ["auto", "client", "client-individual", "no"],
    "transaction": ["a", "b"],
    "receipt": ["r1", "r\\2", "r\r3"],
    "message-id": ["m0", "m1"],
    "subscription": ["1", "2"],
    "x": ["", "a\nb", "c:d", "e\\f", "g\rh", " "],
}

# --- Making a case ---------------------------------------------------------------------------------------------------


def corrupt(rng: random.Random, data: bytes) -> bytes:
    """Flip, delete, duplicate or insert octets, in most cases not at all or once."""
    octets = bytearray(data)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        at = rng.randrange(len(octets) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(octets):
            octets[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            octets[at:at] = rng.choice(INTERESTING)
        elif kind == 2:
            del octets[at : at + rng.randrange(1, 9)]
        else:
            octets[at:at] = octets[at : at + rng.randrange(1, 40)]
    return bytes(octets)


def random_frame(rng: random.Random, version: str) -> bytes:
    """Return a frame such as clients send, serialized in that version of STOMP."""
    headers = [(name, rng.choice(values)) for name, values in HEADERS.items() if rng.random() < 0.5]
    if version == "1.0":
        headers = [(name, value) for name, value in headers if "\n" not in value]
    rng.shuffle(headers)
    command = rng.choice(COMMANDS)
    if command in ("CONNECT", "STOMP"):
        headers = [("accept-version", version)]
    body = rng.choice([b"", b"", b"hello", b"\0\n\0", "안녕".encode(), bytes(rng.randrange(500))])
    if command != "SEND" and rng.random() < 0.9:
        body = b""
    return Frame(command, tuple(headers), body).serialize(version)


def random_data(rng: random.Random, version: str) -> bytes:
    """Return some frames with line ends between them, corrupted or not; sometimes random octets."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(60))
    frames = [random_frame(rng, version) for _ in range(rng.randrange(1, 6))]
    return corrupt(rng, b"".join(frame + rng.choice([b"", b"\n", b"\r\n"]) for frame in frames))


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Split `data` at random places."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 1, 3, len(data)])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# --- What must hold --------------------------------------------------------------------------------------------------


def parse(data: list[bytes], version: str | None) -> tuple[list[Frame], bool]:
    """Return the frames, and whether a fault followed; check that the parser holds no more than its limit."""
    parser, frames = Parser(LIMITS, version), list[Frame]()
    try:
        for piece in data:
            frames.extend(frame for frame in parser.frames(piece) if not isinstance(frame, Heartbeat))
            assert len(parser._held) <= LIMITS.max_frame, "held more than a frame"
    except StompError as error:
        assert str(error), "a fault without a message"
        return frames, True
    return frames, False


def check_parser(rng: random.Random) -> None:
    version = rng.choice([*VERSIONS, None])
    data = random_data(rng, version or "1.0")
    frames, faulty = parse([data], version)
    assert parse(pieces(rng, data), version) == (frames, faulty), "another result in pieces"
    if version is not None:
        # CONNECT is read before the version is known, with CR LF allowed, so it cannot contain a CR.
        frames = [frame for frame in frames if not (frame.command in NEVER_ESCAPED and _has_cr(frame))]
        written = b"".join(frame.serialize(version) for frame in frames)
        longer = Parser(Limits(max_frame=2000, max_header=400), version)
        again = [frame for frame in longer.feed(written) if not isinstance(frame, Heartbeat)]
        expected = [f if f.get("content-length") or not f.body else _with_length(f) for f in frames]
        assert again == expected, "changed by a round trip"


def _has_cr(frame: Frame) -> bool:
    return any("\r" in name + value for name, value in frame.headers)


def _with_length(frame: Frame) -> Frame:
    return frame._replace(headers=(*frame.headers, ("content-length", str(len(frame.body)))))


class Application:
    """Answer every event, and sometimes send a message to each subscription."""

    def __init__(self, rng: random.Random, session: ServerSession) -> None:
        self.rng = rng
        self.session = session

    def act(self, event: Event) -> None:
        if isinstance(event, Connect):
            return self.session.connected("kim")
        if isinstance(event, Commit):
            for part in event.events:
                self.act(part)
        if isinstance(event, Nack):
            for delivery in event.deliveries:
                self.session.message(delivery.subscription, delivery.message, delivery.attempt + 1)
        if isinstance(event, Subscribe) or self.rng.random() < 0.3:
            for subscription in list(self.session.subscriptions.values()):
                number = self.rng.randrange(2)
                self.session.message(subscription, MessageFrame("/t", f"m{number}", b"x", [("x", "a\nb")]))
        answer = self.rng.choice([self.session.done, self.session.done, self.session.done, self.session.failed])
        return answer(event)


def converse(seed: int, data: list[bytes]) -> tuple[bytes, str]:
    """Return everything that a session answers, and the version it negotiated."""
    session = ServerSession(limits=LIMITS, clock=lambda: 0.0)
    application, sent = Application(random.Random(seed), session), b""
    for piece in data:
        for event in session.receive_data(piece):
            if session.closing is None:
                application.act(event)
        sent += b"".join(session.data_to_send())
        assert len(session.subscriptions) <= LIMITS.max_subscriptions
        assert all(len(s.pending) <= LIMITS.max_unacknowledged for s in session.subscriptions.values())
        assert sum(t.size for t in session._transactions.values()) <= LIMITS.max_transactions * LIMITS.max_transaction
        assert not session._unanswered, "an answer is missing"
    session.end()
    assert not any(s.pending for s in session.subscriptions.values())
    return sent, session.version or "1.0"


def check_session(rng: random.Random) -> None:
    version = rng.choice(VERSIONS)
    connect = b"CONNECT\naccept-version:%b\n\n\0" % version.encode() if rng.random() < 0.95 else b""
    frames = [connect + random_data(rng, version), *(random_data(rng, version) for _ in range(rng.randrange(3)))]
    seed = rng.randrange(1 << 30)
    sent, version = converse(seed, frames)
    answers, parser, faulty = list[Frame](), Parser(Limits(max_frame=1 << 16)), b"ERROR\n" in sent
    for frame in parser.frames(sent):
        if isinstance(frame, Frame):
            answers.append(frame)
            parser.version = version if frame.command == "CONNECTED" else parser.version
    commands = [frame.command for frame in answers]
    assert set(commands) <= {"CONNECTED", "MESSAGE", "RECEIPT", "ERROR"}, "a server does not send this"
    assert commands.count("ERROR") == int(faulty) == int("ERROR" in commands[-1:]), "an ERROR must be the last frame"
    converse(seed, pieces(rng, b"".join(frames)))


# --- Running cases ---------------------------------------------------------------------------------------------------


def fuzz(count: int, first: int = 0) -> None:
    """Run `count` cases from number `first` on; add the number of the case to an exception."""
    for number in range(first, first + count):
        rng = random.Random(number)
        check = check_parser if number % 2 else check_session
        try:
            check(rng)
        except Exception as error:
            error.add_note(f"case {number}: python tests/fuzz_stomp.py 1 {number}")
            raise


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]] or [100_000]
    began = time.monotonic()
    fuzz(*arguments)
    print(f"STOMP: {arguments[0]:,} cases in {time.monotonic() - began:.0f} s, none broke a rule")
