"""The wire in a notebook cell: select an event, see its bytes and their meaning; apply faults with sliders and buttons.

`TraceInspector` shows any trace, including a loaded one. `WirePanel` shows a running wire, with its faults below.
Everything works without a mouse: buttons also move through the list, because JupyterLab takes the arrow keys, and the
sliders intercept them. Without a live kernel both are displayed as a table and as plain text, without anything that
changes from run to run, except the bytes of an event that was selected.

A panel neither decodes nor applies faults itself: see `trace.py` and `wire.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final, Literal

import ipywidgets as widgets

from chatlab.lab.widgets.panels import ChatPanel, chat_panel
from chatlab.lab.widgets.slider import Slider
from chatlab.lab.wire.trace import Event, Events, Peer
from chatlab.lab.wire.view import in_words, what
from chatlab.lab.wire.wire import Line, Wire
from chatlab.locale import _, ngettext

__all__ = ["TraceInspector", "WireAndClient", "WirePanel", "wire_and_client", "wire_panel"]

LISTED: Final = 200  # newest events in the list; the trace keeps all
REDRAW_SECONDS: Final = 0.1
LAYERS: Final = ("tcp", "http", "websocket", "stomp", "redis", "fault")
EVERYTHING: Final = "everything"
# No option has the value None, because ipywidgets takes that for no selection.
RATES: Final = (
    (_("no limit"), 0.0),
    ("1 MB/s", 1e6),
    ("100 kB/s", 1e5),
    ("10 kB/s", 1e4),
    ("1 kB/s", 1e3),
    ("100 B/s", 1e2),
)
SIDES: Final = ((_("both"), "both"), (_("the client"), "client"), (_("the server"), "server"))
MOMENTS: Final = (
    (_("at once"), "now"),
    (_("at the next text"), "text"),
    (_("at the next ping"), "ping"),
    (_("at the next close"), "close"),
)
# Where a flipped bit falls: the octet of a short frame, for a client's frames, which have a mask, and for a server's.
PARTS: Final = (
    (_("the opcode"), "opcode"),
    (_("the length"), "length"),
    (_("the mask"), "mask"),
    (_("the text"), "text"),
)
OCTETS: Final[dict[Peer, dict[str, int]]] = {
    "client": {"opcode": 0, "length": 1, "mask": 2, "text": 6},
    "server": {"opcode": 0, "length": 1, "mask": 2, "text": 2},
}
WRAP: Final = "row wrap"  # not shown: CSS
LABELLED: Final = {"description_width": "initial"}
MEANING_STYLE: Final = "overflow-x:auto;border:1px solid #8884;padding:0 0.5em"


async def wire_panel(wire: Wire, *, title: str | None = None) -> WirePanel:
    """Return a panel for a running wire; `await lab.start("panel", wire_panel(wire))` replaces the previous one."""
    return WirePanel(wire, title=title)


async def wire_and_client(url: str, name: str = "가람", *, title: str | None = None) -> WireAndClient:
    """Put a wire before the WebSocket server at `url`, connect a client through it, and show both in one panel."""
    wire = await Wire(to=url).start()
    try:
        chat = await chat_panel(wire.url, (name,), compact=True, title=title)
    except BaseException:
        await wire.aclose()
        raise
    return WireAndClient(wire, chat)


class WireAndClient:
    """A client, and below it the wire that it talks over. `panel.client` and `panel.wire` are for cells."""

    def __init__(self, wire: Wire, chat: ChatPanel) -> None:
        self.wire = wire
        self.client = chat.clients[0]
        self.inspector = WirePanel(wire)
        self._chat = chat
        self.box = widgets.VBox([chat.box, self.inspector.box])

    def pick(self, event: Event | int) -> None:
        """Select an event of the wire, and show its bytes and their meaning."""
        self.inspector.pick(event)

    async def aclose(self) -> None:
        """Disconnect the client and end the wire; both stay legible."""
        await self._chat.aclose()
        self.inspector.close()
        await self.wire.aclose()

    def __repr__(self) -> str:
        return f"{self._chat}\n{self.inspector}"

    def _repr_html_(self) -> str:
        """Return the current state of both: the form that a stored notebook shows."""
        return f"{self._chat._repr_html_()}{self.inspector._repr_html_()}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


class TraceInspector:
    """The events of a trace in a list, and the bytes and the meaning of the selected one."""

    def __init__(self, trace: Events, *, title: str | None = None) -> None:
        self.trace = trace
        self.title = _("What the wire saw") if title is None else title
        self.picked: Event | None = None
        self._drawing = False
        self._layer = _choice(_("Show"), _layers(trace))
        self._list = widgets.Select(
            description=_("Events"),
            rows=7,
            tooltip=_("Pick an event to see its bytes"),
            style=LABELLED,
            layout=widgets.Layout(width="98%"),
        )
        self._before = widgets.Button(description=_("Previous event"), tooltip=_("Pick the event before this one"))
        self._after = widgets.Button(description=_("Next event"), tooltip=_("Pick the event after this one"))
        self._newest = widgets.Button(description=_("Newest event"), tooltip=_("Pick the last event of the list"))
        self._meaning = widgets.HTML()
        steps = widgets.HBox([self._before, self._after, self._newest])
        choosing = widgets.HBox([self._layer, steps], layout=widgets.Layout(flex_flow=WRAP, align_items="flex-end"))
        self.box = widgets.VBox([choosing, self._list, self._meaning])
        self._connect_callbacks()
        self.draw()

    def _connect_callbacks(self) -> None:
        self._layer.observe(lambda __: self.draw(), "value")
        self._list.observe(self._on_list, "value")
        self._before.on_click(lambda __: self._step(-1))
        self._after.on_click(lambda __: self._step(+1))
        self._newest.on_click(lambda __: self._step(LISTED))

    def pick(self, event: Event | int) -> None:
        """Select an event, or the one with that index in the trace, and show its bytes and their meaning."""
        self.picked = self.trace[event] if isinstance(event, int) else event
        self.draw()

    def shown(self) -> list[Event]:
        """Return the events in the list."""
        layer = self._layer.value
        return list(self.trace if layer == EVERYTHING else self.trace.filter(layer))[-LISTED:]

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
        """Show the current trace."""
        self._offer_layers()
        events = self.shown()
        options = [(_label(event), event.number) for event in events]
        numbers = [event.number for event in events]
        self._drawing = True  # new options of a list trigger its change callback
        try:
            with self._list.hold_sync():
                if tuple(options) != tuple(self._list.options):
                    self._list.options = options
                self._list.value = self.picked.number if self.picked and self.picked.number in numbers else None
        finally:
            self._drawing = False
        self._show_meaning()

    def _offer_layers(self) -> None:
        """Offer the layers that the trace has, and no others."""
        options = _layers(self.trace)
        if options != tuple(self._layer.options):
            chosen = self._layer.value
            with self._layer.hold_trait_notifications():
                self._layer.options, self._layer.tooltips = options, _tooltips(_("Show"), options)
                self._layer.value = chosen

    def _show_meaning(self) -> None:
        label = escape(_("the event that is picked"))
        hint = escape(_("Pick an event to see its bytes and what they mean."))
        self._meaning.value = (
            f'<div role="region" tabindex="0" aria-label="{label}" style="{MEANING_STYLE}">'
            f"{self._picked_html() or f'<p>{hint}</p>'}</div>"
        )

    def _picked_html(self) -> str:
        if self.picked is None:
            return ""
        event = self.picked
        title = _label(event)
        if event.size:
            sized = ngettext("{event}, {count} byte on the wire", "{event}, {count} bytes on the wire", event.size)
            title = sized.format(event=title, count=event.size)
        octets = self.trace.hexdump(event)._repr_html_() if event.data else ""
        return f"<p style='margin:0'><b>{escape(title)}</b></p>{octets}"

    # Without a live kernel.

    def __repr__(self) -> str:
        picked = []
        if self.picked is not None:
            heading = _("picked: {event}").format(event=_label(self.picked))
            picked = [heading, str(self.trace.hexdump(self.picked))]
        return "\n".join([self.title, str(self.trace.table(times=False)), *picked])

    def _repr_html_(self) -> str:
        """Return the current list and the selected event: the form that a stored notebook shows."""
        table = self.trace.table(times=False)._repr_html_()
        caption = escape(_("{title}, as it stood")).format(title=f"<b>{escape(self.title)}</b>")
        return f"<p>{caption}</p>{table}{self._picked_html()}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _layers(trace: Events) -> tuple[tuple[str, str], ...]:
    present = {event.layer for event in trace}
    return ((_("everything"), EVERYTHING), *((layer, layer) for layer in LAYERS if layer in present))


def _label(event: Event) -> str:
    """Return an event's line in the list."""
    direction = f"{event.source} → {event.target}" if event.target else event.source
    return f"{event.number}  {direction}: {event.layer} {in_words(event.kind, what(event))}"


class WirePanel(TraceInspector):
    """The inspector of a running wire, kept up to date, and the faults of that wire.

    Create it inside the wire's running event loop, the kernel's.
    """

    def __init__(self, wire: Wire, *, title: str | None = None) -> None:
        self.wire = wire
        self._loop = asyncio.get_running_loop()
        self._redraw: asyncio.TimerHandle | None = None
        self._state = widgets.HTML()
        self._faults = _Faults(self)
        super().__init__(wire.trace, title=_("The wire") if title is None else title)
        self.box.children = [self._state, *self.box.children, self._faults.box]
        self._listening = wire.listening(lambda record: self._redraw_soon())
        self._listening.__enter__()

    def close(self) -> None:
        """Stop following the wire; the events stay visible and selectable."""
        self._listening.__exit__()
        if self._redraw:
            self._redraw.cancel()
        self.draw()

    def submit(self, act: Callable[[], object]) -> None:
        """Call `act` on the wire's loop from a widget's callback."""
        self._loop.call_soon_threadsafe(act)

    def _redraw_soon(self) -> None:
        if self._redraw is None:
            self._redraw = self._loop.call_later(REDRAW_SECONDS, self.draw)

    def draw(self) -> None:
        """Show the current trace, and the state of the line."""
        self._redraw = None
        super().draw()
        self._faults.load()
        count = len(self.wire.connections)
        connections = ngettext("{count} connection open", "{count} connections open", count).format(count=count)
        lines = "; ".join([connections, *(_line_state(side, line) for side, line in self.wire.line.items())])
        self._state.value = f'<p role="status" style="margin:0"><b>{escape(self.title)}</b>: {escape(lines)}</p>'


def _line_state(side: Peer, line: Line) -> str:
    """Return the state of the line for what one side sends, in words."""
    sender = {"client": _("what the client sends"), "server": _("what the server sends")}[side]
    figures = {"delay": line.delay * 1000, "jitter": line.jitter * 1000, "rate": line.rate or 0.0}
    if line.stalled:
        text = _("{sender} is stalled")
    elif (line.delay or line.jitter) and line.rate:
        text = _("{sender} takes {delay:g} ± {jitter:g} ms more and may take {rate:,.0f} bytes a second")
    elif line.delay or line.jitter:
        text = _("{sender} takes {delay:g} ± {jitter:g} ms more")
    elif line.rate:
        text = _("{sender} may take {rate:,.0f} bytes a second")
    else:
        text = _("{sender} passes at once")
    return text.format(sender=sender, **figures)


class _Faults:
    """The sliders and buttons of a wire panel."""

    def __init__(self, panel: WirePanel) -> None:
        self.panel = panel
        self.wire = panel.wire
        self.delay = Slider(_("Delay, ms"), max=2000, step=10, tooltip=_("Delay every byte by this"))
        self.jitter = Slider(_("give or take, ms"), max=2000, step=10, tooltip=_("Vary the delay by up to this"))
        self.rate = _choice(_("Bandwidth"), RATES)
        self.sender = _choice(_("What is sent by"), SIDES)
        self.moment = _choice(_("Strike"), MOMENTS)
        self.count = widgets.BoundedIntText(
            value=2,
            min=0,
            max=1_000_000,
            description=_("Cut after, bytes"),
            style=LABELLED,
            layout=widgets.Layout(width="14em"),
        )
        self.part = _choice(_("A flipped bit is in"), PARTS)
        self.more = widgets.ToggleButton(
            description=_("More faults"), tooltip=_("Show the faults that most lessons do not need")
        )
        self._advanced = widgets.VBox(
            [self.jitter, self.rate, self.moment, self._row(self._advanced_buttons())],
            layout=widgets.Layout(display="none"),
        )
        heading = _("Faults")
        self.box = widgets.VBox(
            [
                widgets.HTML(f"<p><b>{escape(heading)}</b></p>"),
                self.sender,
                self.delay,
                self.part,
                self._row([*self._buttons(), self._heal_button(), self.more]),
                self._advanced,
            ]
        )
        self.more.observe(self._show_more, "value")
        self._loading = False
        self.sender.observe(self.load, "value")
        for control in (self.delay, self.jitter, self.rate):
            control.observe(self._on_line, "value")

    def _row(self, controls: list[widgets.Widget]) -> widgets.HBox:
        return widgets.HBox(controls, layout=widgets.Layout(flex_flow=WRAP))

    def _show_more(self, change: Mapping[str, Any]) -> None:
        self._advanced.layout.display = None if change["new"] else "none"

    def _buttons(self) -> list[widgets.Widget]:
        wire = self.wire
        return [
            self._button(_("Stall"), _("Pass nothing on, and lose nothing"), lambda side: wire.stall(sender=side)),
            self._button(_("Resume"), _("End a stall: the waiting bytes pass"), lambda side: wire.resume(sender=side)),
            self._button(_("Reset"), _("Break the connection with RST"), lambda side: wire.reset()),
            self._button(_("Flip a bit"), _("Change one bit of the next frame from the chosen side"), self._flip),
        ]

    def _flip(self, side: Peer | None) -> None:
        """Flip the last bit of the chosen part of the next frame."""
        sender: Peer = side or "client"
        self.wire.flip(skip=OCTETS[sender][self.part.value], sender=sender)

    def _advanced_buttons(self) -> list[widgets.Widget]:
        wire = self.wire
        return [
            self._button(
                _("Half-open"),
                _("Lose everything that is sent, without notice"),
                lambda side: wire.half_open(sender=side),
            ),
            self.count,
            self._button(
                _("Cut"),
                _("End the connection after that many bytes"),
                lambda side: wire.cut(self.count.value, sender=side),
            ),
        ]

    def _button(self, name: str, tooltip: str, act: Callable[[Peer | None], object]) -> widgets.Button:
        """Return a button that calls `act` with the chosen side, at the chosen moment."""
        button = widgets.Button(description=name, tooltip=tooltip)

        def strike() -> None:
            side, kind = self.side, self.moment.value
            if kind == "now":
                act(side)
            else:
                self.wire.when(lambda: act(side), kind=kind, sender=side)

        button.on_click(lambda __: self.panel.submit(strike))
        return button

    def _heal_button(self) -> widgets.Button:
        button = widgets.Button(
            description=_("Heal"), tooltip=_("Remove all faults of the line"), button_style="success"
        )
        button.on_click(lambda __: self.panel.submit(self.wire.heal))
        return button

    @property
    def side(self) -> Peer | None:
        """The sender whose bytes a fault affects; None for both."""
        chosen: Peer | Literal["both"] = self.sender.value
        return None if chosen == "both" else chosen

    def load(self, __: object = None) -> None:
        """Set the sliders to the state of the line, which a cell may have changed."""
        line = self.wire.line[self.side or "client"]
        self._loading = True
        try:
            self.delay.value, self.jitter.value = round(line.delay * 1000), round(line.jitter * 1000)
            if (line.rate or 0.0) in dict(RATES).values():
                self.rate.value = line.rate or 0.0
        finally:
            self._loading = False

    def _on_line(self, __: object) -> None:
        if not self._loading:
            state = (self.side, self.delay.value / 1000, self.jitter.value / 1000, self.rate.value)
            self.panel.submit(lambda: self._set_line(*state))

    def _set_line(self, side: Peer | None, delay: float, jitter: float, rate: float) -> None:
        """Apply the sliders to the wire; only differences are changed, and noted in the trace."""
        lines = [self.wire.line[side]] if side else list(self.wire.line.values())
        if any((line.delay, line.jitter) != (delay, jitter) for line in lines):
            self.wire.delay(delay, jitter, sender=side)
        if any((line.rate or 0.0) != rate for line in lines):
            self.wire.throttle(rate, sender=side)


def _choice(description: str, options: tuple[tuple[str, Any], ...]) -> widgets.ToggleButtons:
    """Return buttons of which one is pressed; each has a tooltip with its purpose, for keyboard users."""
    return widgets.ToggleButtons(
        options=options,
        description=description,
        tooltips=_tooltips(description, options),
        style={**LABELLED, "button_width": "auto"},
    )


def _tooltips(description: str, options: tuple[tuple[str, Any], ...]) -> list[str]:
    return [f"{description}: {name}" for name, __ in options]
