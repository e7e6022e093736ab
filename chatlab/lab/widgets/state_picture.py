"""The state machine of a connection as a picture, drawn from its table `TRANSITIONS`, with one connection's path.

    StatePicture()                         # the whole table
    StatePicture(connection.history)       # the same, with this connection's path

The positions of the boxes are set here; every arrow and every label comes from `chatlab.websocket.connection`. A cause
that leads from every other state to one state (the end of TCP) is drawn once, from the frame around all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from chatlab.lab.picture import picture
from chatlab.locale import _
from chatlab.websocket.connection import TRANSITIONS, Cause, State

__all__ = ["StatePicture"]

BOX: Final = (150, 36)  # points
PLACES: Final[dict[State, tuple[float, float]]] = {  # the middle of each box
    State.CONNECTING: (300, 50),
    State.OPEN: (300, 135),
    State.CLOSE_SENT: (110, 245),
    State.CLOSE_RECEIVED: (490, 245),
    State.ENDING: (300, 355),
    State.CLOSED: (300, 465),
}
SIZE: Final = (760, 500)
FRAME: Final = (10, 15, 740, 375)  # around every state but CLOSED
DETOUR: Final = 755  # the x position of an arrow that bypasses other boxes
PLAIN: Final = "#888888"
TAKEN: Final = "#0b5cad"

Step = tuple[Cause, State]


class StatePicture:
    """The table as boxes and arrows, and as text; the steps of `history` are bold and numbered."""

    def __init__(self, history: Sequence[Step] = ()) -> None:
        self.history = list(history)
        states = [State.CONNECTING, *(state for _, state in history)]
        self.steps = [(before, cause) for before, (cause, _) in zip(states, history, strict=False)]
        self.from_all = [cause for cause in Cause if _leads_from_all(cause)]

    # As text

    def __str__(self) -> str:
        rows = [(before.name, cause.value, after.name) for (before, cause), after in TRANSITIONS.items()]
        left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [f"{row[0]:{left}}  {row[1]:{middle}}  → {row[2]}" for row in rows]
        if self.history:
            lines += ["", _("The way this connection went:"), *self._path()]
        return "\n".join(lines)

    __repr__ = __str__

    def _path(self) -> Iterator[str]:
        for number, (cause, after) in enumerate(self.history, start=1):
            yield f"{number}. {cause.value} → {after.name}: {after.value}"

    # As a picture

    def svg(self) -> str:
        """Return the picture as SVG; its title and description say the same for readers who cannot see it."""
        width, height = SIZE
        parts = [*self._frame(), *(part for edge in self._edges() for part in self._arrow(*edge)), *self._boxes()]
        look = 'font-family="sans-serif" font-size="12" style="max-width:100%;height:auto"'
        title, size = escape(_("States of a connection")), f'viewBox="0 0 {width} {height}" width="{width}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} '
            f'height="{height}" {look}><title>{title}</title><desc>{escape(str(self))}</desc>'
            f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
        )

    def _edges(self) -> Iterator[tuple[State, State, list[Cause]]]:
        """Yield every pair of states with an arrow, and all causes of that transition."""
        pairs: dict[tuple[State, State], list[Cause]] = {}
        for (before, cause), after in TRANSITIONS.items():
            if cause not in self.from_all:
                pairs.setdefault((before, after), []).append(cause)
        yield from ((before, after, causes) for (before, after), causes in pairs.items())

    def _number(self, before: State, cause: Cause) -> str:
        """Return the position of a step in the history: "2. ", or "" for a step not taken."""
        return f"{self.steps.index((before, cause)) + 1}. " if (before, cause) in self.steps else ""

    def _arrow(self, before: State, after: State, causes: Sequence[Cause]) -> Iterator[str]:
        numbers = [self._number(before, cause) for cause in causes]
        taken = any(numbers)
        (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
        if (before, after) == (State.CONNECTING, State.ENDING):
            x1, x2 = x1 + BOX[0] / 2, x2 + BOX[0] / 2
            yield _line(f"M{x1},{y1} C{DETOUR},{y1} {DETOUR},{y2} {x2},{y2}", taken)
            yield _arrow_head(x2, y2, -1, 0, taken)
            x1 = x2 = (x1 + 3 * DETOUR) / 4  # where the curve is half-way
        else:
            y1, y2 = y1 + BOX[1] / 2, y2 - BOX[1] / 2
            yield _line(f"M{x1},{y1} L{x2},{y2}", taken)
            yield _arrow_head(x2, y2, x2 - x1, y2 - y1, taken)
        top = (y1 + y2) / 2 + 4 - 8 * (len(causes) - 1)
        for row, (cause, number) in enumerate(zip(causes, numbers, strict=True)):
            yield _text((x1 + x2) / 2, top + 16 * row, number + cause.value, bool(number))

    def _frame(self) -> Iterator[str]:
        """Yield the frame around all states but CLOSED, and the arrow of the causes that are possible in each."""
        x, y, width, height = FRAME
        yield (
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="none" stroke="{PLAIN}" '
            f'stroke-dasharray="4 3"/>'
        )
        end_x, end_y = PLACES[State.CLOSED][0], PLACES[State.CLOSED][1] - BOX[1] / 2
        for cause in self.from_all:
            number = next(filter(None, (self._number(before, cause) for before, _ in self.steps)), "")
            yield _line(f"M{end_x},{y + height} V{end_y}", bool(number))
            yield _arrow_head(end_x, end_y, 0, 1, bool(number))
            label = _("{cause}: possible in every state above").format(cause=cause.value)
            yield _text(end_x, end_y - 24, number + label, bool(number))

    def _boxes(self) -> Iterator[str]:
        visited = {State.CONNECTING, *(state for _, state in self.history)} if self.history else set()
        for state, (x, y) in PLACES.items():
            stroke = f'stroke="{TAKEN}" stroke-width="2.5"' if state in visited else f'stroke="{PLAIN}"'
            yield (
                f'<g><title>{escape(state.value)}</title><rect x="{x - BOX[0] / 2}" y="{y - BOX[1] / 2}" '
                f'width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#ffffff" {stroke}/>'
                f"{_text(x, y + 4, state.name, state in visited)}</g>"
            )

    def _repr_html_(self) -> str:
        return picture(self.svg(), _("States of a connection"), str(self))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def _leads_from_all(cause: Cause) -> bool:
    """Return whether `cause` leads from every state but one into that one."""
    transitions = {before: after for (before, each), after in TRANSITIONS.items() if each is cause}
    targets = set(transitions.values())
    return len(targets) == 1 and set(transitions) == set(State) - targets


def _line(path: str, taken: bool) -> str:
    stroke = f'stroke="{TAKEN}" stroke-width="2.5"' if taken else f'stroke="{PLAIN}"'
    return f'<path d="{path}" fill="none" {stroke}/>'


def _arrow_head(x: float, y: float, along_x: float, along_y: float, taken: bool) -> str:
    length = (along_x**2 + along_y**2) ** 0.5
    dx, dy = along_x / length, along_y / length
    corners = [(x, y), (x - 10 * dx - 5 * dy, y - 10 * dy + 5 * dx), (x - 10 * dx + 5 * dy, y - 10 * dy - 5 * dx)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon points="{points}" fill="{TAKEN if taken else PLAIN}"/>'


def _text(x: float, y: float, text: str, taken: bool) -> str:
    """Return a label on its line; a halo hides the line behind the text."""
    look = f'fill="{TAKEN}" font-weight="bold"' if taken else 'fill="#333333"'
    halo = 'stroke="#ffffff" stroke-width="6" paint-order="stroke"'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" {look} {halo}>{escape(text)}</text>'
