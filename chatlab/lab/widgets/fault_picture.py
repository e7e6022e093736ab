"""A picture of a fault: which message reached which member, and how: once, twice, empty, or not at all.

    picture = FaultPicture(["가람", "Nuri"], messages=20)
    picture.follow(garam, nuri)              # fills while their messages arrive
    picture.stop()                           # what they receive later belongs to no message of the picture
    picture.saw("Nuri", 3, "메시지 3")        # or: one observation at a time, from any program

A row for each member, a column for each message. It is fed with observations, so it serves any server whose messages
somebody can watch. Its text has the counts and not the pattern, which may differ from run to run.

A message that arrives empty does not say which one it is. The first empty one of a member is put at its first message,
the second at its second, and so on: a server that shows everybody each message empty fills the row.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.clients import ChatClient
from chatlab.locale import _

__all__ = ["Cell", "FaultPicture", "Mark", "last_number"]

REDRAW_SECONDS = 0.05
EMPTY = ("", "None", "null")  # how a client shows a message without content


class Mark(enum.Enum):
    """What became of one message at one member; the value is what a cell shows."""

    ONCE = "✔"
    TWICE = "2×"
    ALSO_EMPTY = "✔∅"
    EMPTY = "∅"
    MISSING = "–"


WORDS = {
    Mark.ONCE: _("once"),
    Mark.TWICE: _("twice or more"),
    Mark.ALSO_EMPTY: _("once, and once more empty"),
    Mark.EMPTY: _("empty"),
    Mark.MISSING: _("missing"),
}
# A tint for each mark; the mark itself says the same without colour. Black on each has a contrast above 12 to 1.
TINTS = {
    Mark.ONCE: "#dff3e0",
    Mark.TWICE: "#ffe9b8",
    Mark.ALSO_EMPTY: "#ffe9b8",
    Mark.EMPTY: "#e6ddf5",
    Mark.MISSING: "#f9d9d5",
}


@dataclass(slots=True)
class Cell:
    """How often a member was shown one message, with its content and empty."""

    full: int = 0
    empty: int = 0

    @property
    def mark(self) -> Mark:
        """What that amounts to."""
        if self.full > 1:
            return Mark.TWICE
        if self.full:
            return Mark.ALSO_EMPTY if self.empty else Mark.ONCE
        return Mark.EMPTY if self.empty else Mark.MISSING

    @property
    def shown(self) -> str:
        """What the picture shows of it: the mark, with the exact number of times."""
        return f"{self.full}×" if self.full > 1 else self.mark.value


def last_number(text: str) -> int | None:
    """Return the last number in a text, "메시지 7" or "가람 7": the message's number; None if it has none."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None


class FaultPicture:
    """Members × messages, filled by observations. `messages` are the messages' ids, or their number: 0, 1, 2, …"""

    def __init__(self, members: Iterable[str], messages: int | Iterable[Hashable] = 20, *, title: str = "") -> None:
        self.title = title or _("What each member was shown")
        self.messages: list[Hashable] = list(range(messages) if isinstance(messages, int) else messages)
        self.cells = {member: {message: Cell() for message in self.messages} for member in members}
        self._following: list[tuple[ChatClient, _Follower]] = []
        self._guessed = False  # whether an empty message was put at a message that nothing told
        self.unknown = 0  # observations of a message that is not one of `messages`
        self._html = widgets.HTML()
        self._redraw: asyncio.TimerHandle | None = None
        self.box = widgets.VBox([self._html])
        self._draw()

    # Feeding.

    def saw(self, member: str, message: Hashable | None, content: str | None, *, count: int = 1) -> None:
        """Note that `member` was shown `message` with `content`, `count` times; `message` is None if nothing tells it.

        No content (None, or what a client makes of it) means that the message came empty.
        """
        row = self.cells[member]
        for __ in range(count):
            if content is None or content in EMPTY:
                self._saw_empty(row, message)
            elif message in row:
                row[message].full += 1
            else:
                self.unknown += 1
        self._redraw_soon()

    def _saw_empty(self, row: dict[Hashable, Cell], message: Hashable | None) -> None:
        if message is None:
            self._guessed = True
            message = next((each for each, cell in row.items() if not cell.empty), None)
        if message in row:
            row[message].empty += 1
        else:
            self.unknown += 1

    def follow(self, *clients: ChatClient, number: Callable[[str], Hashable | None] = last_number) -> None:
        """Note what these members receive from now on; `number` finds a message's id in a text.

        A text reads "sender: content", as `StompMember` logs it.
        """
        for client in clients:
            follower = _Follower(self, client, number)
            client.on_change.append(follower)
            self._following.append((client, follower))

    def stop(self) -> None:
        """Follow nobody any longer; what was noted stays."""
        for client, follower in self._following:
            client.on_change.remove(follower)
        self._following.clear()

    # Reading.

    def mark(self, member: str, message: Hashable) -> Mark:
        """Return what became of one message at one member."""
        return self.cells[member][message].mark

    def counts(self, member: str) -> dict[Mark, int]:
        """Return how many messages have each mark at one member; together, that is all messages."""
        counted = Counter(cell.mark for cell in self.cells[member].values())
        return {mark: counted[mark] for mark in Mark}

    def texts(self, member: str) -> int:
        """Return how many of the messages a member was shown with their content, once or more."""
        return sum(cell.full > 0 for cell in self.cells[member].values())

    def empty(self, member: str) -> int:
        """Return how many empty messages a member was shown."""
        return sum(cell.empty for cell in self.cells[member].values())

    def shown(self, member: str) -> int:
        """Return how many messages a member was shown in all, repeats and empty ones too."""
        return sum(cell.full + cell.empty for cell in self.cells[member].values())

    def count(self, mark: Mark) -> int:
        """Return how many cells of the whole picture have this mark."""
        return sum(self.counts(member)[mark] for member in self.cells)

    @property
    def clean(self) -> bool:
        """Whether every member was shown every message once, and nothing else."""
        return self.count(Mark.ONCE) == len(self.cells) * len(self.messages) and not self.unknown

    # Showing.

    def _redraw_soon(self) -> None:
        """Draw soon if a loop is running, so that a burst is drawn once; else now."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._draw()
        if self._redraw is None:
            self._redraw = loop.call_later(REDRAW_SECONDS, self._draw)
        return None

    def _draw(self) -> None:
        self._redraw = None
        self._html.value = self._as_table()

    def _as_table(self) -> str:
        caption = f"<caption style='caption-side:top;text-align:left'>{escape(self.title)}</caption>"
        columns = "".join(f"<th scope='col' style='padding:1px 3px'>{escape(str(each))}</th>" for each in self.messages)
        head = f"<tr><th scope='col' style='text-align:left'>{escape(_('member'))}</th>{columns}</tr>"
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{escape(member)}</th>{''.join(map(_td, row.values()))}</tr>"
            for member, row in self.cells.items()
        )
        return (
            f"<div style='overflow-x:auto' tabindex='0' role='region' aria-label='{escape(self.title, quote=True)}'>"
            f"<table style='font-size:0.9em'>{caption}{head}{rows}</table></div>"
            f"<p>{escape(self._legend())}</p>{self._note()}<pre role='status'>{escape(repr(self))}</pre>"
        )

    def _legend(self) -> str:
        used = [mark for mark in Mark if self.count(mark)]
        return "; ".join(f"{mark.value} {WORDS[mark]}" for mark in used)

    def _note(self) -> str:
        said = _("An empty message does not say which one it is; here, each member's are counted from the left.")
        return f"<p>{escape(said)}</p>" if self._guessed else ""

    def _lines(self) -> Iterable[str]:
        for member in self.cells:
            counts = self.counts(member)
            said = ", ".join(f"{counts[mark]} {WORDS[mark]}" for mark in Mark if counts[mark])
            yield f"{member}: {said or _('no messages')}"
        if self.unknown:
            yield _("not one of these messages: {count}").format(count=self.unknown)

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return self._as_table()

    def _repr_mimebundle_(self, **__: Any) -> dict[str, Any]:
        self._draw()
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


class _Follower:
    """Feeds a picture with what a client receives: called after each change of the client."""

    def __init__(self, picture: FaultPicture, client: ChatClient, number: Callable[[str], Hashable | None]) -> None:
        self._picture = picture
        self._client = client
        self._number = number
        self._seen = len(client.received)

    def __call__(self) -> None:
        received: Sequence[str] = self._client.received
        for text in received[self._seen :]:
            content = text.partition(": ")[2]
            empty = content in EMPTY
            self._picture.saw(self._client.name, None if empty else self._number(content), content)
        self._seen = len(received)


def _td(cell: Cell) -> str:
    mark = cell.mark
    style = f"background:{TINTS[mark]};color:#000;text-align:center;padding:1px 3px;min-width:1.4em"
    return f"<td style='{style}' title='{escape(WORDS[mark], quote=True)}'>{cell.shown}</td>"
