"""The ledger: what the article claims, what was measured here, and the verdict computed from it.

    verdict("C2", holds=server_spoke_first, measured="the server's first frame came 0.3 ms after the upgrade")

A lesson's experiment hands over what it measured; the verdict follows from that, and may come out differently on
another machine. A verdict's text names no figure, so that a stored notebook stays the same from run to run; the figures
are kept beside it and shown by `chatlab claims`. Left out: the experiments themselves. They are the lessons' cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Literal

from chatlab.lab.home import home

__all__ = ["CLAIMS", "Claim", "Report", "Verdict", "report", "verdict"]

Outcome = Literal["holds", "holds, when", "does not hold", "happens", "happens, mended", "does not happen"]
SIGNS: dict[str, str] = {
    "holds": "✔",
    "holds, when": "◐",
    "does not hold": "✘",
    "happens": "✘",
    "happens, mended": "✔",
    "does not happen": "◌",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing the article claims (C…), or one fault of its code when it is run (F…), and the lesson that tries it."""

    id: str
    text: str
    lesson: str

    @property
    def is_fault(self) -> bool:
        """Whether this is a fault to reproduce and mend, not a claim to prove."""
        return self.id.startswith("F")


_TEXTS = {
    "01": {
        "C1": "over HTTP the server speaks only when asked",
        "C2": "over WebSocket the server can speak first, at any time",
        "C6": "a WebSocket begins as an HTTP request and then switches protocol",
        "C7": "handshake: the client asks, the server agrees, the connection is upgraded",
        "C9": "either side can start the close",
        "C10": "one TCP connection carries all of it",
    },
    "02": {
        "C3": "full duplex: both directions carry data at the same moment",
        "C4": "real time: a message arrives with less delay than by polling",
        "C5": "economical: one connection is kept, nothing is set up or torn down per message",
        "C8": "after the handshake either side sends whenever it likes",
    },
    "03": {
        "C11": "a handler answers at /room",
        "C12": "any origin is accepted; a real service names its own",
        "C13": "the registry of sessions is safe to change while it is read",
        "C14": "every text goes to every session, the sender's too, with 'Server received: ' before it",
        "C15": "a transport error is logged, and the server lives on",
        "C16": "a closed session leaves the registry",
        "C17": "for basic chat this is enough",
        "F8": "one slow or dead session holds up, or breaks, everybody",
        "F9": "a page of somebody else's can open the socket with the visitor's cookies",
        "F12": "no names, no rooms, no limits: anyone floods everyone",
    },
    "04": {
        "C18": "one server's load climbs with its clients; a broker lets several instances share it",
        "C19": "through the broker a message reaches the clients of all the other instances",
        "C20": "a dropped connection loses messages; a broker can keep them and send them again",
        "C21": "sending and handling come apart: the sender is answered at once, bulk is absorbed",
        "C22": "other services join without touching chat",
    },
    "05": {
        "C23": "RabbitMQ: reliable, many protocols, flexible routing; harder to set up, slower at volume",
        "C24": "Redis Pub/Sub: fast, low latency; keeps nothing, no rich routing",
        "C25": "Kafka: high throughput, kept and replicated; hard to set up, too much for a small app",
        "C26": "throughput: Kafka; latency: Redis Pub/Sub or RabbitMQ",
        "C27": "large systems: RabbitMQ, Kafka",
        "C28": "persistence: Kafka, RabbitMQ, Redis Streams",
        "C29": "simple to run: Redis Pub/Sub; rich patterns: RabbitMQ",
        "C30": "many protocols: RabbitMQ",
    },
    "06": {
        "C34": "STOMP endpoint /ws with a SockJS fallback, simple broker for /topic, prefix /app",
        "C41": "STOMP is a simple text protocol with an interoperable wire format",
        "C42": "STOMP eases rich messaging patterns and many kinds of client",
    },
    "07": {
        "C31": "instances stay in step through Redis, so one scales out by adding instances",
        "C32": "STOMP and Streams together are quick enough to feel live",
        "C33": "Redis's durability and STOMP's guarantees make delivery reliable",
        "C35": "string keys and JSON values in Redis",
        "C36": "a listener container polls with a timeout of 1 s",
        "C37": "each record's content is sent to /topic/public",
        "C38": "group chat-group, consumer consumer-1, stream chat-stream, from the last consumed record on",
        "C39": "the first controller adds to the stream and also answers on /topic/public",
        "C40": "the second controller writes the field message, and polls every 100 ms for 10 records",
        "F1": "all instances share one group and one consumer name, so a record reaches one instance only",
        "F2": "the sender's instance shows a message twice",
        "F3": "nobody creates the group: the first read fails with NOGROUP",
        "F4": "records are read and never acknowledged: the pending list grows for ever",
        "F5": "the stream is never trimmed: memory grows without bound",
        "F6": "two controllers, two field names: mixed, a listener shows empty messages",
        "F7": "polling every 100 ms adds about 50 ms, and caps an instance at 100 messages/s",
        "F10": "an in-memory broker promises at most once; the guarantee has to be built",
        "F11": "values written as JSON and read as strings arrive with quotes around them",
    },
}

CLAIMS: dict[str, Claim] = {
    key: Claim(key, text, lesson) for lesson, claims in _TEXTS.items() for key, text in claims.items()
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an experiment found about one claim: the outcome, the condition or cause, and what was measured."""

    claim: str
    outcome: Outcome
    because: str
    measured: str
    at: float  # seconds since the epoch

    def __str__(self) -> str:
        """The verdict in one line, without figures."""
        claim, tail = CLAIMS[self.claim], f"{self.outcome} {self.because}" if self.because else self.outcome
        return f"{SIGNS[self.outcome]} {claim.id} {tail}: {claim.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            f"<p style='border-left:4px solid #888;padding-left:0.6em'>{SIGNS[self.outcome]} <b>{self.claim}</b> "
            f"<i>{escape(CLAIMS[self.claim].text)}</i><br><b>{self.outcome}</b> {escape(self.because)}</p>"
        )


def verdict(
    claim: str, *, holds: bool, measured: str, when: str = "", because: str = "", mended: bool = False
) -> Verdict:
    """Compute the verdict on a claim from what was measured, write it into the ledger, and return it.

    `holds`: the claim held, or the fault happened, in this run. `when`: the condition it depends on. `because`: the
    cause, for a claim that may fail. `mended`: the same experiment after the cure no longer shows the fault.
    `measured`: the figures behind it, for the ledger. Raises `KeyError` for a claim the article does not make.
    """
    outcome, why = _outcome(CLAIMS[claim], holds, when, because, mended)
    found = Verdict(claim, outcome, why, measured, time.time())
    _keep(found)
    return found


def _outcome(claim: Claim, holds: bool, when: str, because: str, mended: bool) -> tuple[Outcome, str]:
    if claim.is_fault:
        return ("happens, mended" if mended else "happens", when) if holds else ("does not happen", because)
    if not holds:
        return "does not hold", f"because {because}" if because else ""
    return ("holds, when", when) if when else ("holds", "")


class Report:
    """The verdicts on some claims, in the order of the article; a claim nobody tried here says so."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self.claims = list(claims)
        self.verdicts = _read()

    def __repr__(self) -> str:
        return "\n".join(str(self.verdicts.get(c.id) or f"  {c.id} not tried here yet: {c.text}") for c in self.claims)

    def _repr_html_(self) -> str:
        rows = "".join(self._row(claim) for claim in self.claims)
        head = "".join(f"<th style='text-align:left'>{title}" for title in ("claim", "what it says", "here"))
        return f"<table><tr>{head}</tr>{rows}</table>"

    def _row(self, claim: Claim) -> str:
        found = self.verdicts.get(claim.id)
        here = f"{SIGNS[found.outcome]} {found.outcome} {escape(found.because)}" if found else "not tried here yet"
        return (
            f"<tr><td>{claim.id}<td style='text-align:left'>{escape(claim.text)}<td style='text-align:left'>{here}</tr>"
        )


def report(lesson: str | None = None) -> Report:
    """The ledger of one lesson ("01" to "07"), or the whole of it."""
    return Report(claim for claim in CLAIMS.values() if lesson in (None, claim.lesson))


def _folder() -> Path:
    folder = home() / "claims"
    folder.mkdir(exist_ok=True)
    return folder


def _keep(found: Verdict) -> None:
    # A file for each claim, written beside it and moved: notebooks that run at once never undo each other's.
    draft = _folder() / f"{found.claim}.{time.monotonic_ns()}.tmp"
    draft.write_text(json.dumps(asdict(found), ensure_ascii=False, indent=1), encoding="utf-8")
    draft.replace(_folder() / f"{found.claim}.json")


def _read() -> dict[str, Verdict]:
    return {key: found for key in CLAIMS if (found := _read_one(_folder() / f"{key}.json"))}


def _read_one(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Cut short, or of an older form: put aside, never overwritten unseen.
        path.replace(path.with_suffix(".broken"))
        return None
