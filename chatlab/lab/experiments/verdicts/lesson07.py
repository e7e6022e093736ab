"""Lesson 07's verdicts, each computed from what the cells of this kernel have seen.

    from chatlab.lab.experiments.verdicts.lesson07 import seen

    seen.read = lesson07.asked(wire.trace, "XREADGROUP")    a cell keeps what it has measured
    verdicts.c36(seen)                    a later one judges it, or says that it was not measured
    verdicts.answers(seen, "F1", "F2")    a table: in the article's program, and in the chat that holds

Left out: the experiments themselves (`lesson07.py`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median, quantiles
from typing import Any, Protocol

from chatlab.lab.claims import CLAIMS, FIGURES, Figure, Verdict, verdict
from chatlab.lab.experiments.lesson07 import BESIDE, Burst, java_record
from chatlab.lab.ledger import Ledger
from chatlab.locale import _, ngettext

__all__ = [
    "Answers",
    "Picture",
    "Seen",
    "answers",
    "c31",
    "c32",
    "c33",
    "c35",
    "c36",
    "c37",
    "c38",
    "c39",
    "c40",
    "medians",
    "seen",
]

Delays = Callable[[], Awaitable[list[float]]]
AT_ONCE = 100.0  # milliseconds that people take for "at once"
LESS = 0.5  # of one server's deliveries: the busiest of four has clearly fewer
NULL = '{"content":null}'  # not shown: a body


class Picture(Protocol):
    """What the verdicts ask of a `FaultPicture` of 가람, on the sender's server, and Nuri, on the other."""

    def texts(self, member: str) -> int:
        """Return the number of messages that a member was shown with their text."""

    def empty(self, member: str) -> int:
        """Return the number of empty messages that a member was shown."""


@dataclass
class Seen:
    """What the lesson's cells have measured in this kernel; None where a cell has not been run."""

    # The article's program, with the first controller.
    read: str | None = None  # its first read, as Redis got it
    no_group: str | None = None  # the answer
    reads_after: int | None = None  # reads after somebody made the group
    shown: list[str] | None = None  # the bodies for one message
    record: tuple[bytes, bytes] | None = None  # that message in the stream: field and value
    added: str | None = None  # the command that stored it
    picture: Picture | None = None  # twenty messages, two servers
    stored: int | None = None  # records in the stream after some messages
    pending: int | None = None  # how many of them are pending
    memory: tuple[int, int] | None = None  # bytes before and after 2,000 records more
    # With the second controller.
    polled: list[float] | None = None  # seconds from a record to a member
    polled_burst: Burst | None = None  # sixty at once
    caught_up: int | None = None  # reads in the half second after a pause
    empty: str | None = None  # the body for a record of the first controller
    written: Mapping[Any, Any] | None = None  # the record for the text "x"
    beside: int | None = None  # shown of the nine beside a foreign record
    silent: Mapping[str, str] | None = None  # the answers to mistakes
    # The chat that holds.
    book: Ledger | None = None  # the same twenty messages
    groups: int | None = None  # groups of the room's stream
    fields: list[bytes] | None = None  # of its record
    body: Mapping[str, Any] | None = None  # the JSON in it
    length: int | None = None  # records in a stream that may keep a hundred, after a thousand
    streamed: list[float] | None = None
    streamed_burst: Burst | None = None
    beside_now: int | None = None
    answered: Mapping[str, str] | None = None
    # Two processes, and one of them dies.
    kills: Ledger | None = None
    returns: int | None = None  # how often a member lost its connection and came back
    missed: tuple[int, int] | None = None  # of five while away: with the article's program, and with this one
    # More servers.
    busiest: list[float] | None = None  # the busiest server's processor time in ms, of one, two and four
    deliveries: list[int] | None = None  # the messages it delivered


seen = Seen()
"""What the cells of this kernel have measured."""


def medians(seen: Seen) -> dict[str, float]:
    """Return the median delays in milliseconds of the ways that were measured, for a chart."""
    ways = {_("poll every 100 ms"): seen.polled, _("a read that waits"): seen.streamed}
    return {name: median(delays) * 1000 for name, delays in ways.items() if delays is not None}


def not_run(claim: str) -> Verdict:
    """Return "not tested here": the cells that measure it have not been run in this kernel."""
    return verdict(claim, holds=None, because=_("its cells have not been run"), measured="")


# --- Claims ---


def c36(seen: Seen) -> Verdict:
    """Judge whether the listener's container waits one second for records."""
    if seen.read is None:
        return not_run("C36")
    found = re.search(r"BLOCK (\d+)", seen.read)
    wait = int(found[1]) if found else 0
    return verdict(
        "C36",
        holds=wait == 1000,
        because=_("it waits {wait} ms").format(wait=wait),
        measured=seen.read,
        figure=Figure(_("how long a read waits"), wait, 1000, "ms"),
    )


def c38(seen: Seen) -> Verdict:
    """Judge whether the program reads the stream, through the group, under the name that the article says."""
    if seen.read is None:
        return not_run("C38")
    named = {"chat-group", "consumer-1", "chat-stream", ">"} & set(seen.read.split())
    return verdict(
        "C38",
        holds=len(named) == 4,
        because=_("its read names something else"),
        measured=seen.read,
        figure=Figure(_("of the four names, those in its read"), len(named), 4),
    )


def c35(seen: Seen) -> Verdict:
    """Judge whether a record's field is a string and its value is JSON."""
    if seen.record is None:
        return not_run("C35")
    name, value = seen.record
    return verdict(
        "C35",
        holds=name == b"content" and value.startswith(b'"'),
        because=_("a record's fields go through the hash serializers, which the article does not set"),
        measured=f"{name!r} {value!r}",
    )


def c37(seen: Seen) -> Verdict:
    """Judge whether the listener sends each record's content: then one message is shown twice with its text."""
    if seen.shown is None:
        return not_run("C37")
    with_text = len(seen.shown) - seen.shown.count(NULL)
    by_listener = max(with_text - 1, 0)  # one is the controller's own answer
    return verdict(
        "C37",
        holds=with_text == len(seen.shown) == 2,
        because=_("the listener finds no field content in what was written, and sends null"),
        measured=" ".join(seen.shown),
        figure=Figure(_("of one record, contents that the listener sent"), by_listener, 1),
    )


def c39(seen: Seen) -> Verdict:
    """Judge whether the first controller adds a message to the stream and answers on the topic."""
    if seen.added is None or seen.picture is None:
        return not_run("C39")
    direct = seen.picture.texts("가람")
    return verdict(
        "C39",
        holds="chat-stream" in seen.added and direct == 20,
        because=_("a message was not stored, or not answered"),
        measured=seen.added,
        figure=Figure(_("of twenty messages, those answered on the topic"), direct, 20),
    )


def c40(seen: Seen) -> Verdict:
    """Judge whether the second controller writes the field `message` and takes ten records every 100 ms."""
    if seen.written is None or seen.polled_burst is None:
        return not_run("C40")
    count, seconds = seen.polled_burst.messages, seen.polled_burst.seconds
    least = (count / 10 - 2) * 0.1  # ten for each poll, and the first and the last cost less than a whole interval
    return verdict(
        "C40",
        holds=seen.written == java_record(message="x") and seconds > least,
        because=_("it wrote another field, or read faster"),
        measured=_("{record}; {count} records took {seconds:.2f} s").format(
            record=seen.written, count=count, seconds=seconds
        ),
        figure=Figure(_("how long {count} records take").format(count=count), seconds, least, "s"),
    )


def c32(seen: Seen, again: Delays | None = None) -> Verdict:
    """Judge whether nine of ten messages arrive at once, on this machine; `again` measures their delays anew."""
    if seen.streamed is None:
        return not_run("C32")
    slowest = quantiles(seen.streamed, n=10)[-1] * 1000

    async def repeat() -> Verdict:
        assert again is not None
        seen.streamed = await again()
        return c32(seen, again)

    return verdict(
        "C32",
        holds=slowest < AT_ONCE,
        when=_("the network adds no more than the rest of a tenth of a second"),
        because=_("one message in ten took longer"),
        measured=_("median {median:.1f} ms, on one machine without a network").format(
            median=median(seen.streamed) * 1000
        ),
        figure=Figure(_("nine messages of ten arrive within"), slowest, AT_ONCE, "ms", at_least=False),
        again=repeat if again else None,
    )


def c33(seen: Seen) -> Verdict:
    """Judge whether nothing is lost or repeated through the kills, nor while a member is away."""
    if seen.kills is None or seen.missed is None:
        return not_run("C33")
    theirs, ours = seen.missed
    wrong = seen.kills.lost + seen.kills.repeated + seen.kills.out_of_order + ours
    return verdict(
        "C33",
        holds=wrong == 0,
        when=_("receipts, ids and replay are built on top of them"),
        because=_("messages were lost, repeated or reordered"),
        measured=_(
            "{ledger}; members came back {returns} times; of five missed while away: {theirs}, then {ours}"
        ).format(ledger=seen.kills, returns=seen.returns, theirs=theirs, ours=ours),
        figure=Figure(_("messages lost, repeated or reordered"), wrong, 0, at_least=False),
    )


def c31(seen: Seen) -> Verdict:
    """Judge whether servers show the same, and whether more of them leave fewer deliveries for the busiest."""
    if seen.busiest is None or seen.deliveries is None or seen.book is None:
        return not_run("C31")
    one, *__, four = seen.deliveries
    share = four / one if one else 1.0
    return verdict(
        "C31",
        holds=seen.book.clean and share <= LESS,
        when=_("the members are many: storing and reading a message are not divided"),
        because=_("the servers differed, or the busiest had as much to do as before"),
        measured=_(
            "{ledger}; the busiest of 1, 2, 4 servers: {deliveries} deliveries, {times} ms of processor time"
        ).format(ledger=seen.book, times=", ".join(f"{each:.0f}" for each in seen.busiest), deliveries=seen.deliveries),
        figure=Figure(_("deliveries of the busiest of four servers / of one alone"), share, LESS, at_least=False),
    )


# --- Faults: in the article's program, and in the chat that holds ---


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in two programs. `happens` is None if it was not measured; `then`, `now`: what was seen, in words."""

    happens: bool | None
    fixed: bool
    then: str = ""
    now: str = ""
    because: str = ""  # why it did not happen
    figure: Figure | None = None

    def verdict(self, claim: str) -> Verdict:
        """Judge it."""
        if self.happens is None:
            return not_run(claim)
        found = _("{then}; with the chat that holds: {now}").format(then=self.then, now=self.now or _("not run"))
        return verdict(
            claim, holds=self.happens, fixed=self.fixed, because=self.because, measured=found, figure=self.figure
        )


UNSEEN = Fault(None, fixed=False)


def _said(book: Ledger | None) -> str:
    return "" if book is None else str(book)


def f1(seen: Seen) -> Fault:
    """One group for all servers: the second server's member is not shown every message."""
    if seen.picture is None:
        return UNSEEN
    texts = seen.picture.texts("Nuri")
    then = ngettext("Nuri was shown {count} of 20 texts", "Nuri was shown {count} of 20 texts", texts)
    return Fault(
        texts < 20,
        seen.book is not None and not seen.book.lost,
        then.format(count=texts),
        _said(seen.book),
        _("the second server's member was shown all"),
    )


def f2(seen: Seen) -> Fault:
    """The sender's server shows a message twice, the second time empty."""
    if seen.picture is None:
        return UNSEEN
    texts, empty = seen.picture.texts("가람"), seen.picture.empty("가람")
    return Fault(
        texts == 20 and empty > 0,
        seen.book is not None and not seen.book.repeated,
        _("가람 was shown {texts} texts, and {empty} empty messages besides").format(texts=texts, empty=empty),
        _said(seen.book),
        _("nothing was shown twice"),
    )


def f3(seen: Seen) -> Fault:
    """Nobody makes the group."""
    if seen.no_group is None:
        return UNSEEN
    fixed = seen.groups == 0 and seen.book is not None and not seen.book.lost
    now = "" if seen.groups is None else _("groups: {count}; {ledger}").format(count=seen.groups, ledger=seen.book)
    return Fault("NOGROUP" in seen.no_group, fixed, seen.no_group, now, _("there was a group"))


def f4(seen: Seen) -> Fault:
    """Every record that was read stays pending."""
    if seen.pending is None or seen.stored is None:
        return UNSEEN
    now = "" if seen.groups is None else _("nothing can be pending: no group")
    return Fault(
        0 < seen.pending == seen.stored,
        seen.groups == 0,
        _("{pending} of {stored} pending").format(pending=seen.pending, stored=seen.stored),
        now,
        _("something was acknowledged"),
    )


def f5(seen: Seen) -> Fault:
    """The stream grows for ever."""
    if seen.memory is None:
        return UNSEEN
    small, large = seen.memory
    now = "" if seen.length is None else _("{count} of 1,000 records kept").format(count=seen.length)
    return Fault(
        large > small,
        seen.length is not None and seen.length < 500,
        _("{small:,} bytes, then {large:,}").format(small=small, large=large),
        now,
        _("the stream did not grow"),
    )


def f6(seen: Seen) -> Fault:
    """Two controllers, two names for one field."""
    if seen.empty is None:
        return UNSEEN
    now = "" if seen.body is None else ", ".join(sorted(seen.body))
    return Fault("null" in seen.empty, "content" in (seen.body or {}), seen.empty, now, _("the text was shown"))


def f7(seen: Seen) -> Fault:
    """A read every 100 ms, ten records at most: about 50 ms more, and about a hundred messages per second."""
    if seen.polled is None or seen.polled_burst is None:
        return UNSEEN
    late, rate = median(seen.polled) * 1000, seen.polled_burst.rate
    words = _("median {late:.0f} ms, {rate:,.0f} messages per second")
    now, fixed = "", False
    if seen.streamed is not None and seen.streamed_burst is not None:
        soon = median(seen.streamed) * 1000
        now = words.format(late=soon, rate=seen.streamed_burst.rate)
        fixed = soon < late / 2 and seen.streamed_burst.rate > rate
    return Fault(
        late > 25 and rate < 150,
        fixed,
        words.format(late=late, rate=rate),
        now,
        _("polling added little here"),
        Figure(_("messages per second, with many at once"), rate, 150, at_least=False),
    )


def f10(seen: Seen) -> Fault:
    """Whoever is away for a moment has missed what was said."""
    if seen.missed is None:
        return UNSEEN
    theirs, ours = seen.missed
    missed = _("{count} of 5 missed while away")
    clean = seen.kills is not None and seen.kills.clean
    return Fault(
        theirs == 5,
        ours == 0 and clean,
        missed.format(count=theirs),
        f"{missed.format(count=ours)}; {_said(seen.kills)}",
        _("a member that was away got what it had missed"),
        Figure(_("of five messages, those missed while away"), theirs, 5),
    )


def f11(seen: Seen) -> Fault:
    """A record's field is a Java object, so the listener finds no text in it."""
    if seen.shown is None:
        return UNSEEN
    return Fault(
        NULL in seen.shown,
        seen.fields == [b"body"] and bool(seen.body),
        " ".join(seen.shown),
        ""
        if seen.fields is None
        else _("one field, {name}, with JSON in it").format(name=seen.fields[0].decode(errors="backslashreplace")),
        _("no message was empty"),
    )


def f15(seen: Seen) -> Fault:
    """An error ends the listener for good."""
    if seen.reads_after is None:
        return UNSEEN
    return Fault(
        seen.reads_after == 0,
        seen.kills is not None and not seen.kills.lost,
        _("{count} reads after the group was made").format(count=seen.reads_after),
        "" if seen.kills is None else _("Redis killed: {ledger}").format(ledger=seen.kills),
        _("it read again"),
    )


def f16(seen: Seen) -> Fault:
    """The schedule makes up for the reads of a pause."""
    if seen.caught_up is None:
        return UNSEEN
    now = "" if seen.streamed_burst is None else _("no schedule: a read waits in Redis")
    return Fault(
        seen.caught_up > 10,
        seen.streamed_burst is not None,
        _("{count} reads in the half second after a pause, where five are usual").format(count=seen.caught_up),
        now,
        _("it did not make up for them"),
        Figure(_("reads in the half second after a pause"), seen.caught_up, 11),
    )


def f18(seen: Seen) -> Fault:
    """One record that Java did not write costs nine others."""
    if seen.beside is None:
        return UNSEEN
    shown = _("{count} of {all} shown")
    now = "" if seen.beside_now is None else shown.format(count=seen.beside_now, all=BESIDE)
    return Fault(
        seen.beside == 0,
        seen.beside_now == BESIDE,
        shown.format(count=seen.beside, all=BESIDE),
        now,
        _("the others were shown"),
    )


def f19(seen: Seen) -> Fault:
    """Mistakes are met with silence."""
    if seen.silent is None:
        return UNSEEN
    answered = seen.answered or {}
    return Fault(
        set(seen.silent.values()) == {_("silence")},
        set(answered.values()) == {"ERROR"},
        _counted(seen.silent.values()),
        _counted(answered.values()),
        _("a mistake was answered"),
    )


def _counted(answers: Iterable[str]) -> str:
    each = list(answers)
    return ", ".join(f"{each.count(answer)} × {answer}" for answer in dict.fromkeys(each))


FAULTS: dict[str, Callable[[Seen], Fault]] = {
    "F1": f1,
    "F2": f2,
    "F3": f3,
    "F4": f4,
    "F5": f5,
    "F6": f6,
    "F7": f7,
    "F10": f10,
    "F11": f11,
    "F15": f15,
    "F16": f16,
    "F18": f18,
    "F19": f19,
}


class Answers:
    """Verdicts on faults as one table: what was seen in the article's program, and in the chat that holds."""

    def __init__(self, rows: Sequence[tuple[Verdict, Fault]]) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return "\n".join(str(found) for found, _fault in self.rows)

    def _repr_html_(self) -> str:
        titles = _("fault"), _("the article's program"), _("the chat that holds"), _("here")
        head = "".join(f"<th scope='col' style='text-align:left'>{escape(title)}</th>" for title in titles)
        caption = f"<caption style='text-align:left'>{escape(_('The faults, before and after'))}</caption>"
        return f"<table>{caption}<tr>{head}</tr>{''.join(self._row(*row) for row in self.rows)}</table>"

    @staticmethod
    def _row(found: Verdict, fault: Fault) -> str:
        start, end = FIGURES
        left = "style='text-align:left;vertical-align:top'"  # not shown: CSS
        claim = f"<b>{found.claim}</b> {escape(CLAIMS[found.claim].text)}"
        here = escape(str(found).split(f" {found.claim} ")[0] + " " + found.words)
        return (
            f"<tr><th scope='row' {left[:-1]};font-weight:normal'>{claim}</th>"
            f"<td {left}>{start}{escape(fault.then)}{end}</td><td {left}>{start}{escape(fault.now)}{end}</td>"
            f"<td {left}>{here}</td></tr>"
        )


def answers(seen: Seen, *claims: str) -> Answers:
    """Judge faults from what was seen: "F1", "F2", …"""
    faults = [(claim, FAULTS[claim](seen)) for claim in claims]
    return Answers([(fault.verdict(claim), fault) for claim, fault in faults])
