"""Views of events: a table, an annotated hexdump, a sequence diagram.

Each has a plain text, for terminals and screen readers, and a static HTML form for notebooks that needs no kernel and
no script. Text and HTML have the same content.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Final

from chatlab.lab.picture import picture
from chatlab.lab.wire.decode import Event, Part, quoted, shortened
from chatlab.lab.wire.fields import describe_bytes, describe_http, describe_redis, describe_stomp
from chatlab.locale import _, ngettext
from chatlab.websocket import frames as websocket
from chatlab.websocket.frames import Field

# --- Table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, the text it shows for an event, whether that is a number."""

    title: str
    show: Callable[[Event], str]
    number: bool = False


class Table:
    """Events, one per line. An event carried by another is on the line below it."""

    def __init__(self, events: Sequence[Event], *, times: bool = True, sizes: bool = True, limit: int = 200) -> None:
        self.events = events[:limit]
        self.more = len(events) - len(self.events)
        self.columns = list(_columns(events, times, sizes))

    def __str__(self) -> str:
        rows = [[column.title for column in self.columns], *self._rows()]
        widths = [max(map(_width, cells)) for cells in zip(*rows, strict=True)]
        lines = ["  ".join(map(_padded, row, widths, self.columns)).rstrip() for row in rows]
        return "\n".join(lines + ([_more(self.more)] if self.more else []))

    __repr__ = __str__

    def _rows(self) -> list[list[str]]:
        return [[column.show(event) for column in self.columns] for event in self.events]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{escape(each.title)}</th>' for each in self.columns)
        body = "".join(f"<tr>{''.join(map(_cell, row, self.columns))}</tr>" for row in self._rows())
        more = f"<p>{escape(_more(self.more))}</p>" if self.more else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def _columns(events: Sequence[Event], times: bool, sizes: bool) -> Iterator[Column]:
    if times:
        yield Column(_("seconds"), lambda event: f"{event.time:.6f}", number=True)
        yield Column(_("held ms"), _held, number=True)
    if len({event.connection for event in events if event.connection}) > 1:
        yield Column(_("conn"), lambda event: str(event.connection or ""), number=True)
    yield Column(_("who"), lambda event: f"{event.source} → {event.target}" if event.target else event.source)
    if sizes:
        yield Column(_("bytes"), lambda event: str(event.size) if event.size else "", number=True)
    yield Column(_("layer"), lambda event: event.layer)
    yield Column(_("kind"), lambda event: event.kind)
    yield Column(_("what"), what)


def _held(event: Event) -> str:
    return f"{(event.passed - event.until) * 1000:.1f}" if event.passed is not None and event.size else ""


def what(event: Event) -> str:
    """Return an event's summary, and a mark if the wire has not passed it on."""
    lost = "" if arrived(event) else _("✗ not passed on")
    return "  ".join(filter(None, [shortened(event.summary, 90), lost]))


def in_words(kind: str, summary: str) -> str:
    """Return kind and summary; a Redis command, whose summary begins with its kind, is named once."""
    return summary if summary.split(" ", 1)[0] == kind else f"{kind} {summary}".rstrip()


def arrived(event: Event) -> bool:
    """Return whether the wire has passed on the event's bytes; true for an event without bytes."""
    return event.passed is not None or not event.size


def _width(text: str) -> int:
    """Return the number of terminal columns that `text` takes: a Hangul syllable takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int, column: Column) -> str:
    space = " " * (width - _width(text))
    return space + text if column.number else text + space


def _cell(text: str, column: Column) -> str:
    return f'<td style="text-align:{"right" if column.number else "left"}">{escape(text)}</td>'


# --- Annotated hexdump -----------------------------------------------------------------------------------------------

TITLES: Final = (_("octets"), _("bits"), _("field"), _("value"), _("meaning"), _("clause"))
COLOURS: Final = ("#d7e8fb", "#fbe3c8", "#d9f0d3", "#f3d9ee", "#fdf3b8", "#d5efef")
CELL: Final = "text-align:left;line-height:1.4;padding:1px 6px"
SHOWN_OCTETS: Final = 256


class Dissection:
    """Octets and their fields, bit by bit."""

    def __init__(self, data: bytes, fields: Sequence[Field]) -> None:
        self.data = data
        self.fields = list(fields)

    def __str__(self) -> str:
        rows = [TITLES, *map(self._row, self.fields)]
        widths = [max(map(_width, cells)) for cells in zip(*rows, strict=True)]
        lines = [
            "  ".join(text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join([*self._dump(), "", *(line.rstrip() for line in lines)])

    __repr__ = __str__

    def _dump(self) -> list[str]:
        """Return the lines of a hexdump, sixteen octets each."""
        shown = self.data[:SHOWN_OCTETS]
        lines = [
            f"{at:04x}  {shown[at : at + 16].hex(' '):47}  {_ascii(shown[at : at + 16])}"
            for at in range(0, len(shown), 16)
        ]
        return lines + ([_more_octets(len(self.data) - len(shown))] if len(self.data) > len(shown) else [])

    def _row(self, field: Field) -> tuple[str, ...]:
        octets = f"{field.start}" if field.stop - field.start <= 1 else f"{field.start}-{field.stop - 1}"
        meaning = f"{field.meaning}; ✗ {field.problem}" if field.problem else field.meaning
        return octets, self._bits(field), field.name, _value(field), meaning, field.clause

    def _bits(self, field: Field) -> str:
        """Return the field as it is on the wire: whole octets in hexadecimal, parts of an octet bit by bit."""
        if field.bit % 8 == 0 and field.bits % 8 == 0:
            return shortened(self.data[field.start : min(field.stop, field.start + 9)].hex(" "), 24)
        bits = f"{self.data[field.start]:08b}"
        at = field.bit % 8
        row = "." * at + bits[at : at + field.bits] + "." * (8 - at - field.bits)
        return f"{row[:4]} {row[4:]}"

    def _repr_html_(self) -> str:
        octets = " ".join(self._octet(at) for at in range(min(len(self.data), SHOWN_OCTETS)))
        hidden = len(self.data) - SHOWN_OCTETS
        more = f" {escape(_more_octets(hidden))}" if hidden > 0 else ""
        head = "".join(f'<th scope="col" style="{CELL}">{title}</th>' for title in TITLES)
        body = "".join(self._html_row(number, field) for number, field in enumerate(self.fields))
        dump = f'<p style="font-family:monospace;line-height:1.8;color:#111">{octets}{more}</p>'
        return f"{dump}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _octet(self, at: int) -> str:
        """Return one octet in the colour of its first field; its tooltip names all of its fields."""
        here = [number for number, field in enumerate(self.fields) if field.start <= at < field.stop]
        names = ", ".join(self.fields[number].name for number in here)
        title = escape(_("octet {position}: {names}").format(position=at, names=names), quote=True)
        colour = COLOURS[here[0] % len(COLOURS)] if here else "transparent"
        return f'<span title="{title}" style="background:{colour};padding:2px">{self.data[at]:02x}</span>'

    def _html_row(self, number: int, field: Field) -> str:
        octets, bits, *rest, clause = map(escape, self._row(field))
        # One octet's bits stay on one line; a long row of octets must not leave too little space for the meaning.
        wrapping = "white-space:nowrap" if len(bits) <= len("0000 0000") else "white-space:normal;max-width:7em"
        style = f"background:{COLOURS[number % len(COLOURS)]};color:#111;font-family:monospace;{wrapping};{CELL}"
        mark = f'style="{style}"'
        cells = "".join(f'<td style="{CELL}">{text}</td>' for text in rest)
        source = f'<td style="{CELL};white-space:nowrap;font-size:90%">{clause}</td>'
        return f'<tr><td style="{CELL}">{octets}</td><td {mark}>{bits}</td>{cells}{source}</tr>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def _ascii(data: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in data)


def _value(field: Field) -> str:
    if isinstance(field.value, int):
        return str(field.value)
    return quoted(field.value, 30) if field.value else ""


def dissect(what: Event | bytes) -> Dissection:
    """Return the octets of an event with their fields named; bytes are read as a WebSocket frame."""
    if isinstance(what, bytes):
        return Dissection(what, websocket.describe(what))
    describe = {"http": describe_http, "stomp": describe_stomp, "redis": describe_redis}.get(what.layer, describe_bytes)
    fields = _frame_fields(what, what.value) if isinstance(what.value, Part) else describe(what.data)
    return Dissection(what.data, fields)


def _frame_fields(event: Event, part: Part) -> list[Field]:
    """Name the bits of a frame, and add what the connection determines: masking errors, the inflated content."""
    fields = websocket.describe(event.data)
    if (part.frame.mask is not None) != (event.sender == "client"):
        rule = _("frames from a client must be masked, frames from a server must not")
        fields = [replace(field, problem=rule) if field.name == "MASK" else field for field in fields]
    if event.content != part.frame.payload:
        fields[-1] = replace(
            fields[-1], meaning=_("inflated: {content}").format(content=quoted(event.content)), clause="RFC 7692 §7.2.2"
        )
    return fields


# --- Sequence diagram ------------------------------------------------------------------------------------------------

MARGIN: Final = 90  # points: space for the times and half of a party's name
APART: Final = 360
ROW: Final = 30
LABEL: Final = 77  # columns of about 6.2 points: between two parties a label may reach into the margins
LABEL_ON_ARROW: Final = 54  # a longer one reaches over the arrow's head, and is drawn above it
LABEL_BETWEEN: Final = 48  # with more parties, it would overlap the next label
ARROW_COLOURS: Final = {
    "tcp": "#666666",
    "http": "#8a4b00",
    "websocket": "#0b5cad",
    "stomp": "#6a1b9a",
    "redis": "#a3152a",
    "bytes": "#333333",
    "fault": "#b00020",
}


class SequencePicture:
    """Events as arrows between the parties, from top to bottom; one that was lost or held ends halfway, at a cross."""

    def __init__(self, events: Sequence[Event], *, times: bool = False, limit: int = 60) -> None:
        self.events = list(events[:limit])
        self.more = len(events) - len(self.events)
        self.times = times
        self.parties = list(dict.fromkeys(name for event in self.events for name in self._ends(event) if name))

    def _ends(self, event: Event) -> tuple[str, str]:
        """Return the two parties of an event, client first, so that the client's line is on the left."""
        if event.sender == "wire":
            return "", ""
        client, server = (event.source, event.target) if event.sender == "client" else (event.target, event.source)
        several = len({each.connection for each in self.events if each.connection}) > 1
        if client == "client" and several:
            client = _("client {number}").format(number=event.connection)
        return client, server

    def __str__(self) -> str:
        lines = [
            self._heading(),
            *map(self._line, self.events),
        ]
        return "\n".join(lines + ([_more(self.more)] if self.more else []))

    __repr__ = __str__

    def _heading(self) -> str:
        count = len(self.events)
        heading = ngettext(
            "Sequence of {count} event between {parties}:", "Sequence of {count} events between {parties}:", count
        )
        return heading.format(count=count, parties=", ".join(self.parties))

    def _line(self, event: Event) -> str:
        time = f"{event.time:.6f}  " if self.times else ""
        client, server = self._ends(event)
        way = {"client": f"{client} → {server}: ", "server": f"{server} → {client}: ", "wire": "— "}[event.sender]
        return f"{time}{way}{event.layer} {in_words(event.kind, what(event))}"

    # -- SVG

    def svg(self) -> str:
        """Return the diagram as SVG. Its title and description say the same for readers who cannot see it."""
        width = 2 * MARGIN + APART * max(1, len(self.parties) - 1)
        height = ROW * (len(self.events) + 2 + bool(self.more))
        drawn = [*self._lifelines(height), *(part for row in enumerate(self.events) for part in self._arrow(*row))]
        if self.more:
            drawn.append(_text(width / 2, height - 8, _more(self.more), "#333333"))
        title = escape(_("Sequence picture"))
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} '
            f'font-family="sans-serif" font-size="12"><title>{title}</title>'
            f"<desc>{escape(str(self))}</desc>"
            f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(drawn)}</svg>'
        )

    def _place(self, party: str) -> float:
        return MARGIN + APART * self.parties.index(party)

    def _lifelines(self, height: float) -> Iterator[str]:
        for party in self.parties:
            x = self._place(party)
            yield _text(x, ROW / 2 + 4, party, "#111111", weight="bold")
            yield f'<line x1="{x}" y1="{ROW * 0.8}" x2="{x}" y2="{height - ROW / 2}" stroke="#999999"/>'

    def _arrow(self, row: int, event: Event) -> Iterator[str]:
        y = ROW * (row + 2)
        colour = ARROW_COLOURS[event.layer]
        if self.times:
            yield _text(4, y, f"{event.time:.4f}", "#333333", anchor="start")
        limit = LABEL if len(self.parties) <= 2 else LABEL_BETWEEN
        label = _fitting(in_words(event.kind, event.summary), limit)
        if event.sender == "wire":
            yield _text(MARGIN + APART * (len(self.parties) - 1) / 2, y - 4, f"— {label} —", colour, weight="bold")
            return
        client, server = map(self._place, self._ends(event))
        start, end = (client, server) if event.sender == "client" else (server, client)
        above = 4 if _width(label) <= LABEL_ON_ARROW else 8
        yield _text((start + end) / 2, y - above, label, colour)
        if event.layer == "stomp" and any(each.layer == "websocket" for each in self.events):
            return  # the WebSocket frame above carries it and has the arrow
        if not arrived(event):
            end = (start + end) / 2
            yield _text(end, y + 4, "✗", colour, weight="bold")
        dash = ' stroke-dasharray="4 3"' if event.layer == "tcp" else ""
        yield f'<line x1="{start}" y1="{y}" x2="{end}" y2="{y}" stroke="{colour}"{dash}/>'
        if arrived(event):
            back = end - 8 if end > start else end + 8
            yield f'<polygon points="{end},{y} {back},{y - 4} {back},{y + 4}" fill="{colour}"/>'

    def _repr_html_(self) -> str:
        return picture(self.svg(), _("Sequence picture"), str(self))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def _fitting(text: str, columns: int) -> str:
    """Return the text, shortened if it takes more columns than that: a Hangul syllable takes two."""
    return shortened(text, columns - (_width(text) - len(text)))


def _more(count: int) -> str:
    return ngettext("… {count} more", "… {count} more", count).format(count=count)


def _more_octets(count: int) -> str:
    return ngettext("… {count} more octet", "… {count} more octets", count).format(count=count)


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "middle", weight: str = "normal") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
