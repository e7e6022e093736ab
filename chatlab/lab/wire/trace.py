"""The recording of a wire, as one list of events in the order they happened.

    trace.filter(layer="websocket", sender="client").table(times=False)
    trace.hexdump(trace.first(kind="text"))
    trace.sequence()
    trace.save("mine.jsonl"); Trace.load("mine.jsonl")

A trace is a sequence of `Event`s: `len`, indexing and loops work. It holds the records of its wire and decodes them
only when they are read, so that recording costs the wire next to nothing. A file also holds the records, one JSON
object per line, and is decoded when it is loaded: an old recording benefits from a better decoder.

Left out: redaction. A trace of a login shows the password.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, overload

from chatlab.lab.wire.decode import Conversation, Event, Peer, Sender, WireRecord
from chatlab.lab.wire.view import Dissection, SequencePicture, Table, dissect
from chatlab.locale import _

__all__ = ["Event", "Events", "Match", "Peer", "Sender", "Trace", "WireRecord", "dissect"]

FORMAT_KEY: Final = "chatlab trace"  # not shown: a key of the file
FORMAT: Final = 1  # of the file, given in its first line
NOT_IN_FILE: Final[dict[str, Any]] = {
    "data": "",
    "offset": 0,
    "note": "",
    "ends": ["client", "server"],
    "went": 0,
    "passed": None,
}


@dataclass(frozen=True, slots=True)
class Match:
    """A condition on events: their layer, kind, sender and connection, and a function `where` that returns true.

    `layer` and `kind` may name several: ("text", "close"). None matches any.
    """

    layer: str | Collection[str] | None = None
    kind: str | Collection[str] | None = None
    sender: Sender | None = None
    connection: int | None = None
    where: Callable[[Event], bool] | None = None

    def __call__(self, event: Event) -> bool:
        """Return whether `event` matches."""
        return (
            _is_one_of(event.layer, self.layer)
            and _is_one_of(event.kind, self.kind)
            and self.sender in (None, event.sender)
            and self.connection in (None, event.connection)
            and (self.where is None or self.where(event))
        )


def _is_one_of(name: str, wanted: str | Collection[str] | None) -> bool:
    return wanted is None or name == wanted or (not isinstance(wanted, str) and name in wanted)


class Events(Sequence[Event]):
    """Some events of a trace, in order, and the ways to view them."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events = list(events)

    @property
    def events(self) -> list[Event]:
        """The events as a list."""
        return self._events

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: int | slice) -> Event | Events:
        return Events(self.events[index]) if isinstance(index, slice) else self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def filter(
        self,
        layer: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        *,
        sender: Sender | None = None,
        connection: int | None = None,
        where: Callable[[Event], bool] | None = None,
    ) -> Events:
        """Return the events that match; see `Match`."""
        return Events(filter(Match(layer, kind, sender, connection, where), self.events))

    def first(
        self,
        layer: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        *,
        sender: Sender | None = None,
        connection: int | None = None,
        where: Callable[[Event], bool] | None = None,
    ) -> Event:
        """Return the first event that matches. Raises LookupError when none does."""
        match = Match(layer, kind, sender, connection, where)
        for event in self.events:
            if match(event):
                return event
        raise LookupError(_("none of {count} events matches {match}").format(count=len(self), match=match))

    def table(self, *, times: bool = True, sizes: bool | None = None, limit: int = 200) -> Table:
        """Return the events as a table, the first `limit` of them.

        With `times=False` it has nothing that differs from run to run: no times and, by default, no sizes (the size of
        an HTTP request changes with the number of digits of a port).
        """
        return Table(self.events, times=times, sizes=times if sizes is None else sizes, limit=limit)

    def sequence(self, *, times: bool = False, limit: int = 60) -> SequencePicture:
        """Return the events as a sequence diagram: a line for each party, an arrow for each event."""
        return SequencePicture(self.events, times=times, limit=limit)

    def hexdump(self, event: Event | int) -> Dissection:
        """Return the bytes of one event, or of the one with that index; each field has a name and a clause."""
        return dissect(self[event] if isinstance(event, int) else event)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self.table()._repr_mimebundle_()


class Trace(Events):
    """Everything a wire recorded, up to `keep` bytes. Times are in seconds since the trace was made."""

    def __init__(self, *, keep: int = 256 * 1024 * 1024) -> None:
        super().__init__()
        self.keep = keep
        self.full = False
        self.records: list[WireRecord] = []
        self._began = time.monotonic()
        self._numbers = itertools.count()
        self._connections = itertools.count(1)
        self._conversations: dict[int, Conversation] = {}
        self._decoded = 0  # records

    # -- recording

    def now(self) -> float:
        """Return the time on this trace's clock."""
        return time.monotonic() - self._began

    def new_connection(self) -> int:
        """Return the number for one more connection."""
        return next(self._connections)

    def add(self, record: WireRecord) -> None:
        """Add a record; beyond `keep` bytes, add a note that the recording ends, and nothing after it."""
        if self.full:
            return
        self.keep -= len(record.data)
        if self.keep < 0:
            self.full = True
            record = WireRecord(record.time, 0, "wire", note=_("the recording is full and ends here"))
        self.records.append(record)

    # -- reading

    @property
    def events(self) -> list[Event]:
        """All complete events so far, decoded."""
        self.decode()
        return self._events

    def decode(self) -> list[Event]:
        """Decode the records added since the last call; return their events."""
        before = len(self._events)
        for record in self.records[self._decoded :]:
            if record.connection not in self._conversations:
                self._conversations[record.connection] = Conversation(record.connection, self._numbers)
            self._events += self._conversations[record.connection].feed(record)
        self._decoded = len(self.records)
        return self._events[before:]

    def sent(self, sender: Peer, connection: int = 1) -> bytes:
        """Return all the bytes one peer sent on one connection."""
        return b"".join(
            record.data for record in self.records if (record.sender, record.connection) == (sender, connection)
        )

    # -- files

    def save(self, path: str | Path) -> None:
        """Write the records to a file, one JSON object per line, bytes as Latin-1 text, which keeps ASCII legible."""
        with Path(path).open("w", encoding="utf-8") as file:
            file.write(json.dumps({FORMAT_KEY: FORMAT}) + "\n")
            for record in self.records:
                file.write(json.dumps(_to_json(record)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote. Raises ValueError if it is another kind of file."""
        with Path(path).open(encoding="utf-8") as file:
            first, *lines = (json.loads(line) for line in file if line.strip())
        if first != {FORMAT_KEY: FORMAT}:
            raise ValueError(_("not a chatlab trace of format {format}: {path}").format(format=FORMAT, path=path))
        trace = cls()
        trace.records = [_from_json(line) for line in lines]
        return trace


def _to_json(record: WireRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in WireRecord.__slots__}
    fields |= {"data": record.data.decode("latin-1"), "ends": list(record.ends)}
    return {name: value for name, value in fields.items() if name not in NOT_IN_FILE or value != NOT_IN_FILE[name]}


def _from_json(fields: dict[str, Any]) -> WireRecord:
    fields = NOT_IN_FILE | fields
    return WireRecord(**{**fields, "data": fields["data"].encode("latin-1"), "ends": tuple(fields["ends"])})
