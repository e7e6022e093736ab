"""The wire in a notebook cell: pick an event, see its bytes and their meaning; make the line bad by slider and button.

`TraceInspector` looks at any trace, a loaded one too. `WirePanel` puts one on a running wire, with its faults below.
Everything can be done without a mouse: the list is walked by buttons too, because JupyterLab keeps the arrow keys for
itself, and the sliders take them back. Without a live kernel both show as a table and
as plain text, with nothing in them that changes from run to run, but for the bytes of an event that was picked before.

A panel decodes nothing and breaks nothing itself: that is `trace.py` and `wire.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final, Literal

import ipywidgets as widgets

from chatlab.lab.widgets.slider import Slider
from chatlab.lab.wire.trace import Event, Events, Peer
from chatlab.lab.wire.view import in_words, what
from chatlab.lab.wire.wire import Line, Wire

__all__ = ["TraceInspector", "WirePanel", "wire_panel"]

LISTED: Final = 200  # events in the list, the newest; the trace keeps them all
REDRAW_SECONDS: Final = 0.1
LAYERS: Final = ("everything", "tcp", "http", "websocket", "stomp", "redis", "fault")
# No option stands for None: to ipywidgets that is "nothing chosen".
RATES: Final = (
    ("no limit", 0.0),
    ("1 MB/s", 1e6),
    ("100 kB/s", 1e5),
    ("10 kB/s", 1e4),
    ("1 kB/s", 1e3),
    ("100 B/s", 1e2),
)
SIDES: Final = (("both", "both"), ("the client", "client"), ("the server", "server"))
MOMENTS: Final = (
    ("at once", "now"),
    ("at the next text", "text"),
    ("at the next ping", "ping"),
    ("at the next close", "close"),
)
LABELLED: Final = {"description_width": "initial"}
MEANING_STYLE: Final = "max-height:30em;overflow:auto;border:1px solid #8884;padding:0 0.5em"


async def wire_panel(wire: Wire, *, title: str = "The wire") -> WirePanel:
    """Return a panel on a running wire: `await lab.start("panel", wire_panel(wire))` replaces the one before."""
    return WirePanel(wire, title=title)


class TraceInspector:
    """The events of a trace in a list, and the bytes and the meaning of the one that is picked."""

    def __init__(self, trace: Events, *, title: str = "What the wire saw") -> None:
        self.trace = trace
        self.title = title
        self.picked: Event | None = None
        self._drawing = False
        self._layer = _choice("Show", tuple((layer, layer) for layer in LAYERS))
        self._list = widgets.Select(
            description="Events",
            rows=10,
            tooltip="Pick an event to see its bytes",
            style=LABELLED,
            layout=widgets.Layout(width="98%"),
        )
        self._before = widgets.Button(description="Previous event", tooltip="Pick the event before this one")
        self._after = widgets.Button(description="Next event", tooltip="Pick the event after this one")
        self._newest = widgets.Button(description="Newest event", tooltip="Pick the last event of the list")
        self._meaning = widgets.HTML()
        steps = widgets.HBox([self._before, self._after, self._newest])
        self.box = widgets.VBox([self._layer, self._list, steps, self._meaning])
        self._wire_up()
        self.draw()

    def _wire_up(self) -> None:
        self._layer.observe(lambda _: self.draw(), "value")
        self._list.observe(self._on_list, "value")
        self._before.on_click(lambda _: self._step(-1))
        self._after.on_click(lambda _: self._step(+1))
        self._newest.on_click(lambda _: self._step(LISTED))

    def pick(self, event: Event | int) -> None:
        """Show the bytes and the meaning of an event, or of the one with that index in the trace."""
        self.picked = self.trace[event] if isinstance(event, int) else event
        self.draw()

    def shown(self) -> list[Event]:
        """Return the events in the list."""
        layer = self._layer.value
        return list(self.trace if layer == "everything" else self.trace.filter(layer))[-LISTED:]

    def _on_list(self, change: Mapping[str, Any]) -> None:
        if not self._drawing and change["new"] is not None:
            self.picked = next(event for event in self.trace if event.number == change["new"])
            self._show_meaning()

    def _step(self, by: int) -> None:
        events = self.shown()
        numbers = [event.number for event in events]
        if not events:
            return
        at = numbers.index(self.picked.number) + by if self.picked and self.picked.number in numbers else len(events)
        self.pick(events[max(0, min(at, len(events) - 1))])

    def draw(self) -> None:
        """Show what is in the trace now."""
        options = [(_label(event), event.number) for event in self.shown()]
        numbers = [number for _, number in options]
        self._drawing = True  # a list that gets new options says that its value has changed
        try:
            with self._list.hold_sync():
                if tuple(options) != tuple(self._list.options):
                    self._list.options = options
                self._list.value = self.picked.number if self.picked and self.picked.number in numbers else None
        finally:
            self._drawing = False
        self._show_meaning()

    def _show_meaning(self) -> None:
        self._meaning.value = (
            f'<div role="region" tabindex="0" aria-label="the event that is picked" style="{MEANING_STYLE}">'
            f"{self._picked_html() or '<p>Pick an event to see its bytes and what they mean.</p>'}</div>"
        )

    def _picked_html(self) -> str:
        if self.picked is None:
            return ""
        event = self.picked
        title = f"{_label(event)}, {event.size} bytes on the wire" if event.size else _label(event)
        return f"<p><b>{escape(title)}</b></p>{self.trace.hexdump(event)._repr_html_() if event.data else ''}"

    # Without a live kernel.

    def __repr__(self) -> str:
        picked = [] if self.picked is None else [f"picked: {_label(self.picked)}", str(self.trace.hexdump(self.picked))]
        return "\n".join([self.title, str(self.trace.table(times=False)), *picked])

    def _repr_html_(self) -> str:
        """The list as it stands and the event that is picked: the form a stored notebook shows."""
        table = self.trace.table(times=False)._repr_html_()
        return f"<p><b>{escape(self.title)}</b>, as it stood</p>{table}{self._picked_html()}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _label(event: Event) -> str:
    """One line of the list."""
    who = f"{event.source} → {event.target}" if event.target else event.source
    return f"{event.number}  {who}: {event.layer} {in_words(event.kind, what(event))}"


class WirePanel(TraceInspector):
    """The inspector on a running wire, kept up to date, and the faults of that wire.

    Must be made inside the running event loop the wire lives on, the kernel's.
    """

    def __init__(self, wire: Wire, *, title: str = "The wire") -> None:
        self.wire = wire
        self._loop = asyncio.get_running_loop()
        self._redraw: asyncio.TimerHandle | None = None
        self._state = widgets.HTML()
        self._faults = _Faults(self)
        super().__init__(wire.trace, title=title)
        self.box.children = [self._state, *self.box.children, self._faults.box]
        self._listening = wire.listening(lambda record: self._redraw_soon())
        self._listening.__enter__()

    def close(self) -> None:
        """Stop following the wire; what is shown stays, and can still be picked."""
        self._listening.__exit__()
        if self._redraw:
            self._redraw.cancel()
        self.draw()

    def hand_over(self, act: Callable[[], object]) -> None:
        """Do something to the wire from a widget's callback: on the loop, after what is under way there."""
        self._loop.call_soon_threadsafe(act)

    def _redraw_soon(self) -> None:
        if self._redraw is None:
            self._redraw = self._loop.call_later(REDRAW_SECONDS, self.draw)

    def draw(self) -> None:
        """Show what is in the trace now, and how the line stands."""
        self._redraw = None
        super().draw()
        self._faults.load()
        lines = "; ".join(f"what the {side} sends {_told(line)}" for side, line in self.wire.line.items())
        count = len(self.wire.connections)
        self._state.value = (
            f'<p role="status"><b>{escape(self.title)}</b>: {count} connection{"s" * (count != 1)} open; {lines}</p>'
        )


def _told(line: Line) -> str:
    """How the line stands, in words."""
    if line.stalled:
        return "is stalled"
    delay = f"takes {line.delay * 1000:g} ± {line.jitter * 1000:g} ms more" if line.delay or line.jitter else ""
    rate = f"may take {line.rate:,.0f} bytes a second" if line.rate else ""
    return " and ".join(filter(None, [delay, rate])) or "passes at once"


class _Faults:
    """The sliders and buttons of a wire panel."""

    def __init__(self, panel: WirePanel) -> None:
        self.panel = panel
        self.wire = panel.wire
        self.delay = Slider("Delay, ms", max=2000, step=10, tooltip="Hold every byte back so long")
        self.jitter = Slider("give or take, ms", max=2000, step=10, tooltip="Vary the delay by up to this")
        self.rate = _choice("Bandwidth", RATES)
        self.sender = _choice("What is sent by", SIDES)
        self.moment = _choice("Strike", MOMENTS)
        self.count = widgets.BoundedIntText(
            value=2,
            min=0,
            max=1_000_000,
            description="Cut after, bytes",
            style=LABELLED,
            layout=widgets.Layout(width="14em"),
        )
        self.box = widgets.VBox(
            [
                widgets.HTML("<p><b>Faults</b></p>"),
                self.sender,
                widgets.HBox([self.delay, self.jitter], layout=widgets.Layout(flex_flow="row wrap")),
                self.rate,
                self.moment,
                widgets.HBox(self._buttons(), layout=widgets.Layout(flex_flow="row wrap")),
            ]
        )
        self._loading = False
        self.sender.observe(self.load, "value")
        for control in (self.delay, self.jitter, self.rate):
            control.observe(self._on_line, "value")

    def _buttons(self) -> list[widgets.Widget]:
        wire = self.wire
        return [
            self._button("Stall", "Let nothing pass, and lose nothing", lambda side: wire.stall(sender=side)),
            self._button("Resume", "End a stall: what waited goes on", lambda side: wire.resume(sender=side)),
            self._button(
                "Half-open", "Lose all that is sent; nobody is told", lambda side: wire.half_open(sender=side)
            ),
            self._button("Reset", "Break the connection with RST", lambda side: wire.reset()),
            self._button("Flip a bit", "Change the next byte", lambda side: wire.flip(sender=side)),
            self.count,
            self._button(
                "Cut", "End the connection after so many bytes", lambda side: wire.cut(self.count.value, sender=side)
            ),
            self._heal_button(),
        ]

    def _button(self, name: str, tooltip: str, act: Callable[[Peer | None], object]) -> widgets.Button:
        """A button that does `act` to what the chosen side sends, at the chosen moment."""
        button = widgets.Button(description=name, tooltip=tooltip)

        def strike() -> None:
            side, kind = self.side, self.moment.value
            if kind == "now":
                act(side)
            else:
                self.wire.when(lambda: act(side), kind=kind, sender=side)

        button.on_click(lambda _: self.panel.hand_over(strike))
        return button

    def _heal_button(self) -> widgets.Button:
        button = widgets.Button(description="Heal", tooltip="A good line again", button_style="success")
        button.on_click(lambda _: self.panel.hand_over(self.wire.heal))
        return button

    @property
    def side(self) -> Peer | None:
        """Whose bytes a fault is for; None for both sides'."""
        chosen: Peer | Literal["both"] = self.sender.value
        return None if chosen == "both" else chosen

    def load(self, _: object = None) -> None:
        """Show on the sliders how the line stands, whoever has set it."""
        line = self.wire.line[self.side or "client"]
        self._loading = True
        try:
            self.delay.value, self.jitter.value = round(line.delay * 1000), round(line.jitter * 1000)
            if (line.rate or 0.0) in dict(RATES).values():
                self.rate.value = line.rate or 0.0
        finally:
            self._loading = False

    def _on_line(self, _: object) -> None:
        if not self._loading:
            state = (self.side, self.delay.value / 1000, self.jitter.value / 1000, self.rate.value)
            self.panel.hand_over(lambda: self._set_line(*state))

    def _set_line(self, side: Peer | None, delay: float, jitter: float, rate: float) -> None:
        """Bring the wire to what the sliders say; only what differs is changed, and noted in the trace."""
        lines = [self.wire.line[side]] if side else list(self.wire.line.values())
        if any((line.delay, line.jitter) != (delay, jitter) for line in lines):
            self.wire.delay(delay, jitter, sender=side)
        if any((line.rate or 0.0) != rate for line in lines):
            self.wire.throttle(rate, sender=side)


def _choice(description: str, options: tuple[tuple[str, Any], ...]) -> widgets.ToggleButtons:
    """Buttons, one of them pressed; each says what it is about to those who come to it by Tab."""
    return widgets.ToggleButtons(
        options=options,
        description=description,
        tooltips=[f"{description}: {name}" for name, _ in options],
        style={**LABELLED, "button_width": "auto"},
    )
