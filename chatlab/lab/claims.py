"""The ledger: what the article claims, what was measured here, and the verdict that follows.

    verdict("C2", holds=server_spoke_first, measured="the server's first frame came 0.3 ms after the upgrade")

A lesson's cell runs an experiment and passes on what it measured. The verdict is computed from that, so it may differ
on another machine. In a notebook it is a card: the claim, the outcome, the figure that decided, its threshold, and the
distance between the two; with `again`, a button runs the experiment once more. As text, a verdict has no figures, so
that it is the same in every run; in HTML they are between `FIGURES` marks, which a comparison of two runs leaves out.
`chatlab claims` prints them, too. Left out: the experiments (`experiments/` and the lessons' cells).
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Any

from chatlab.lab.home import home
from chatlab.locale import _

__all__ = ["CLAIMS", "FIGURES", "Claim", "Figure", "Outcome", "Report", "Verdict", "report", "verdict"]

# Around the figures in a card's HTML: nbval, which compares two runs, leaves out what is between them.
FIGURES = "<!--figures-->", "<!--/figures-->"


class Outcome(StrEnum):
    """What a verdict says; the ledger's files contain these values."""

    HOLDS = "holds"
    HOLDS_WHEN = "holds, when"  # not shown: a value in files
    DOES_NOT_HOLD = "does not hold"  # not shown: a value in files
    HAPPENS = "happens"
    FIXED = "happens, mended"  # not shown: a value in files
    DOES_NOT_HAPPEN = "does not happen"  # not shown: a value in files
    TOO_CLOSE = "too close to call"  # not shown: a value in files
    NOT_TESTED = "not tested here"  # not shown: a value in files


@dataclass(frozen=True, slots=True)
class Words:
    """How an outcome is shown: its mark, its words, its words with a condition or cause, and a card's edge."""

    mark: str
    alone: str
    with_reason: str
    colour: str = "#888"  # GREY; never shown without the mark; legible on white and on black


GREEN, RED, GREY = "#3a9a50", "#c8553d", "#888"
WORDS = {
    Outcome.HOLDS: Words("✔", _("holds"), _("holds, when {reason}"), GREEN),
    Outcome.HOLDS_WHEN: Words("◐", _("holds"), _("holds, when {reason}"), GREEN),
    Outcome.DOES_NOT_HOLD: Words("✘", _("does not hold"), _("does not hold because {reason}"), RED),
    Outcome.HAPPENS: Words("✘", _("happens"), _("happens, when {reason}"), RED),
    Outcome.FIXED: Words("✔", _("happens, fixed"), _("happens, when {reason}; fixed"), GREEN),
    Outcome.DOES_NOT_HAPPEN: Words("◌", _("does not happen"), _("does not happen because {reason}")),
    Outcome.TOO_CLOSE: Words("≈", _("too close to call"), _("too close to call because {reason}")),
    Outcome.NOT_TESTED: Words("◇", _("not tested here"), _("not tested here because {reason}")),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the article (C…) or a fault of its code (F…), and the lesson that tests it."""

    id: str
    text: str
    lesson: str

    @property
    def is_fault(self) -> bool:
        """Whether this is a fault to reproduce and fix, not a claim to test."""
        return self.id.startswith("F")


_TEXTS = {
    "01": {
        "C1": _("over HTTP the server speaks only when asked"),
        "C2": _("over WebSocket the server can speak first, at any time"),
        "C6": _("a WebSocket begins as an HTTP(S) request and then switches protocol"),
        "C7": _("handshake: the client asks, the server agrees, the connection is upgraded"),
        "C9": _("either side can start the close"),
        "C10": _("one TCP connection carries all of it"),
    },
    "02": {
        "C3": _("full duplex: both directions carry data at the same moment"),
        "C4": _("real time: a message arrives with less delay than by polling"),
        "C5": _("economical: one connection is kept, nothing is set up or torn down per message"),
        "C8": _("after the handshake either side sends whenever it likes"),
    },
    "03": {
        "C11": _("a handler answers at /room"),
        "C12": _("any origin is accepted; a real service names its own"),
        "C13": _("a registry of sessions is needed that is safe to change while it is read"),
        "C14": _("every text goes to every session, the sender's too, with 'Server received: ' before it"),
        "C15": _("a transport error is logged, and the server lives on"),
        "C16": _("a closed session leaves the registry"),
        "C17": _("for basic chat this is enough"),
        "F8": _("one slow or dead session holds up, or breaks, everybody"),
        "F9": _("a page on another site can open the socket with the visitor's cookies"),
        "F12": _("no names, no rooms, no limits: anyone floods everyone"),
        "F13": _("members see messages in different orders"),
        "F14": _("a session that is being sent to refuses a second sender, and that sender is disconnected"),
        "F17": _("the sender is disconnected for somebody else's dead session"),
    },
    "04": {
        "C18": _("one server's load climbs with its clients; a broker lets several instances share it"),
        "C19": _("through the broker a message reaches the clients of all the other instances"),
        "C20": _("a dropped connection loses messages; a broker can keep them and send them again"),
        "C21": _("sending and handling come apart: the sender is answered at once, bulk is absorbed"),
        "C22": _("other services join without touching chat"),
    },
    "05": {
        "C23": _("RabbitMQ: reliable, many protocols, flexible routing; harder to set up, slower at volume"),
        "C24": _("Redis Pub/Sub: fast, low latency; keeps nothing, no rich routing"),
        "C25": _("Kafka: high throughput, kept and replicated; hard to set up, too much for a small app"),
        "C26": _("throughput: Kafka; latency: Redis Pub/Sub or RabbitMQ"),
        "C27": _("large systems: RabbitMQ, Kafka"),
        "C28": _("persistence: Kafka, RabbitMQ, Redis Streams"),
        "C29": _("simple to run: Redis Pub/Sub; rich patterns: RabbitMQ"),
        "C30": _("many protocols: RabbitMQ"),
    },
    "06": {
        "C34": _("STOMP endpoint /ws with a SockJS fallback, simple broker for /topic, prefix /app"),
        "C41": _("STOMP is a simple text protocol with an interoperable wire format, mostly spoken over WebSocket"),
        "C42": _("STOMP eases rich messaging patterns and many kinds of client"),
    },
    "07": {
        "C31": _("instances stay in step through Redis, so one scales out by adding instances"),
        "C32": _("STOMP and Streams together are quick enough to feel live"),
        "C33": _("Redis's durability and STOMP's guarantees make delivery reliable"),
        "C35": _("string keys and JSON values in Redis"),
        "C36": _("a listener container polls with a timeout of 1 s"),
        "C37": _("each record's content is sent to /topic/public"),
        "C38": _("group chat-group, consumer consumer-1, stream chat-stream, from the last consumed record on"),
        "C39": _("the first controller adds to the stream and also answers on /topic/public"),
        "C40": _("the second controller writes the field message, and polls every 100 ms for 10 records"),
        "F1": _("all instances share one group and one consumer name, so a record reaches one instance only"),
        "F2": _("the sender's instance shows a message twice"),
        "F3": _("nobody creates the group: the first read fails with NOGROUP"),
        "F4": _("records are read and never acknowledged: the pending list grows for ever"),
        "F5": _("the stream is never trimmed: memory grows without bound"),
        "F6": _("two controllers, two field names: mixed, a listener shows empty messages"),
        "F7": _("polling every 100 ms adds about 50 ms, and caps an instance at 100 messages/s"),
        "F10": _("an in-memory broker promises at most once; the guarantee has to be built"),
        "F11": _("fields are written as Java objects and read as text: every record is shown as an empty message"),
        "F15": _("one error ends the listener for good: a group made later changes nothing"),
        "F16": _("the schedule makes up for missed reads all at once"),
        "F18": _("one record that Java did not write costs up to nine others"),
        "F19": _("mistakes are passed over in silence"),
    },
}

CLAIMS: dict[str, Claim] = {
    key: Claim(key, text, lesson) for lesson, claims in _TEXTS.items() for key, text in claims.items()
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, and the threshold that decides the verdict, both in `unit`.

    The claim, or the fault, needs at least the threshold; with `at_least=False`, at most. Where the measurement was
    repeated, `low` and `high` are the lowest and the highest of its values, and `value` their median.
    """

    name: str  # what was measured: "delay over WebSocket / delay by polling"
    value: float
    threshold: float
    unit: str = ""
    at_least: bool = True
    low: float | None = None
    high: float | None = None

    @property
    def too_close(self) -> bool:
        """Whether some repeats lie on one side of the threshold and some on the other, so that they decide nothing."""
        return self.low is not None and self.high is not None and self.low < self.threshold < self.high

    @property
    def distance(self) -> str:
        """How far the value is from its threshold, in words."""
        gap = abs(self.value - self.threshold)
        # Two shares differ by points: 43 % is not 7 % below 50 %.
        far = _("{number} percentage points").format(number=_number(gap)) if self.unit == "%" else self._with_unit(gap)
        if self.value == self.threshold:
            return _("exactly at it")
        if self.value > self.threshold:
            return _("{distance} above it").format(distance=far)
        return _("{distance} below it").format(distance=far)

    def _with_unit(self, number: float) -> str:
        return f"{_number(number)} {self.unit}".strip()

    @property
    def _spread(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return " " + _("(repeats: {low} to {high})").format(low=_number(self.low), high=_number(self.high))

    def __str__(self) -> str:
        text = (
            _("{name}: {value}; the claim needs at least {threshold}: {distance}")
            if self.at_least
            else _("{name}: {value}; the claim needs at most {threshold}: {distance}")
        )
        return text.format(
            name=self.name,
            value=self._with_unit(self.value) + self._spread,
            threshold=self._with_unit(self.threshold),
            distance=self.distance,
        )


def _number(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


Again = Callable[[], Awaitable["Verdict"]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an experiment found about a claim: the outcome, its condition or cause, and what was measured.

    `recorded`: on which machine and when, if what was measured comes from a recording; "" if it was measured here.
    `again` runs the experiment once more; it is not stored.
    """

    claim: str
    outcome: Outcome
    because: str  # the condition or the cause; "" if there is none
    measured: str
    at: float  # seconds since the epoch
    figure: Figure | None = None
    recorded: str = ""
    again: Again | None = field(default=None, compare=False)

    @property
    def words(self) -> str:
        """The outcome with its condition or cause, in words, and whether it was recorded elsewhere."""
        words = WORDS[self.outcome]
        text = words.with_reason.format(reason=self.because) if self.because else words.alone
        return _("{outcome} (recorded)").format(outcome=text) if self.recorded else text

    @property
    def is_from_here(self) -> bool:
        """Whether it rests on a measurement on this machine."""
        return self.outcome is not Outcome.NOT_TESTED and not self.recorded

    @property
    def figures(self) -> str:
        """The figure with its threshold, and what else was measured, one on each line; "" if there is nothing."""
        return "\n".join(filter(None, [str(self.figure or ""), self._source, self.measured]))

    @property
    def _source(self) -> str:
        if not self.recorded:
            return ""
        return _("recorded, not measured here: {where}").format(where=self.recorded)

    def __str__(self) -> str:
        """Return the verdict in one line, without figures."""
        return f"{WORDS[self.outcome].mark} {self.claim} {self.words}: {CLAIMS[self.claim].text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        words = WORDS[self.outcome]
        colour = GREY if self.recorded else words.colour
        style = f"border:1px solid #8885;border-left:5px solid {colour};{CARD_STYLE}"
        return (
            f"<div role='group' aria-label='{self.claim}' style='{style}'>"
            f"<div>{words.mark} <b>{self.claim} {escape(self.words)}</b></div>"
            f"<div><i>{escape(CLAIMS[self.claim].text)}</i></div>"
            f"{f'<div>{escape(self._source)}</div>' if self.recorded else ''}{self._figures_html()}</div>"
        )

    def _figures_html(self) -> str:
        figure = f"<div>{escape(str(self.figure))}</div>" if self.figure else ""
        measured = _fold(_("what was measured here"), self.measured) if self.measured else ""
        return f"{FIGURES[0]}{figure}{measured}{FIGURES[1]}" if figure or measured else ""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        still = {"text/html": self._repr_html_(), "text/plain": repr(self)}
        if self.again is None:
            return still
        from chatlab.lab.card import Card  # `chatlab claims` needs no widgets

        return {**Card(self.claim, self, self.again).box._repr_mimebundle_(), **still}


CARD_STYLE = "border-radius:4px;padding:0.4em 0.8em;margin:0.2em 0;max-width:52em;line-height:1.5;text-align:left"


def _fold(title: str, text: str) -> str:
    return (
        f"<details><summary>{escape(title)}</summary><div style='white-space:pre-wrap'>{escape(text)}</div></details>"
    )


def verdict(
    claim: str,
    *,
    holds: bool | None,
    measured: str,
    when: str = "",
    because: str = "",
    fixed: bool = False,
    figure: Figure | None = None,
    recorded: str = "",
    again: Again | None = None,
) -> Verdict:
    """Compute the verdict on a claim from what was measured, store it in the ledger, and return it.

    `holds`: in this run the claim held, or the fault happened; None if it could not be tested here. `when`: the
    condition it depends on. `because`: why the claim failed or was not tested. `fixed`: the same experiment on the
    fixed code does not show the fault. `figure`: what decided, with its threshold; if its repeats lie on both sides of
    that, the outcome is "too close to call", whatever `holds` says. `measured`: the other figures behind the verdict.
    `recorded`: the machine and date of the recording they come from; "" if they were measured here. `again`: runs the
    experiment once more and returns its verdict, for a button. Raises `KeyError` for a claim that the article does not
    make.
    """
    outcome, reason = _outcome(CLAIMS[claim], holds, when, because, fixed)
    if holds is not None and figure is not None and figure.too_close:
        outcome, reason = Outcome.TOO_CLOSE, _("the repeats lie on both sides of the threshold")
    found = Verdict(claim, outcome, reason, measured, time.time(), figure, recorded, again)
    _save(found)
    return found


def _outcome(claim: Claim, holds: bool | None, when: str, because: str, fixed: bool) -> tuple[Outcome, str]:
    if holds is None:
        return Outcome.NOT_TESTED, because
    if claim.is_fault:
        return (Outcome.FIXED if fixed else Outcome.HAPPENS, when) if holds else (Outcome.DOES_NOT_HAPPEN, because)
    if not holds:
        return Outcome.DOES_NOT_HOLD, because
    return (Outcome.HOLDS_WHEN, when) if when else (Outcome.HOLDS, "")


class Report:
    """The verdicts on some claims, in the article's order, and which claims have not been tried on this machine."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self.claims = list(claims)
        self.verdicts = _load()

    def __repr__(self) -> str:
        return "\n".join(str(self.verdicts.get(claim.id) or _not_tried(claim)) for claim in self.claims)

    def _repr_html_(self) -> str:
        rows = "".join(self._row(claim) for claim in self.claims)
        titles = _("claim"), _("what it says"), _("here"), _("figures")
        head = "".join(f"<th style='text-align:left'>{title}" for title in titles)
        return f"<table><tr>{head}</tr>{rows}</table>"

    def _row(self, claim: Claim) -> str:
        found = self.verdicts.get(claim.id)
        here = f"{WORDS[found.outcome].mark} {escape(found.words)}" if found else escape(_("not tried here yet"))
        figures = _fold(_("show"), found.figures) if found and found.figures else ""
        cells = claim.id, escape(claim.text), here, f"{FIGURES[0]}{figures}{FIGURES[1]}"
        return f"<tr>{''.join(f'<td {CELL_STYLE}>{cell}' for cell in cells)}</tr>"


CELL_STYLE = "style='text-align:left;vertical-align:top'"  # not shown: CSS


def _not_tried(claim: Claim) -> str:
    return "  " + _("{claim} not tried here yet: {text}").format(claim=claim.id, text=claim.text)


def report(lesson: str | None = None) -> Report:
    """Return the ledger of one lesson ("01" to "07"), or all of it."""
    return Report(claim for claim in CLAIMS.values() if lesson in (None, claim.lesson))


def _folder() -> Path:
    folder = home() / "claims"
    folder.mkdir(exist_ok=True)
    return folder


def _save(found: Verdict) -> None:
    # One file for each claim, written under another name and renamed: notebooks that run at the same time do not
    # overwrite each other's verdicts.
    target = _folder() / f"{found.claim}.json"
    earlier = None if found.is_from_here else _load_one(target)
    if earlier is not None and earlier.is_from_here:
        return  # it was tested on this machine before
    draft = _folder() / f"{found.claim}.{time.monotonic_ns()}.tmp"
    draft.write_text(json.dumps(_fields(found), ensure_ascii=False, indent=1), encoding="utf-8")
    draft.replace(target)


def _fields(found: Verdict) -> dict[str, Any]:
    fields = asdict(replace(found, again=None))
    del fields["again"]
    return fields


def _load() -> dict[str, Verdict]:
    return {key: found for key in CLAIMS if (found := _load_one(_folder() / f"{key}.json"))}


def _load_one(path: Path) -> Verdict | None:
    try:
        return _verdict_of(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Truncated, or in an older format: set it aside rather than overwrite it.
        path.replace(path.with_suffix(".broken"))
        return None


def _verdict_of(fields: dict[str, Any]) -> Verdict:
    figure = fields.get("figure")  # files of older versions have none
    return Verdict(
        **{**fields, "outcome": Outcome(str(fields.get("outcome"))), "figure": Figure(**figure) if figure else None}
    )
