"""Panels: live chat clients side by side in a notebook cell.

`ChatPanel` shows each client with its state, an input line, its log with times, and controls for the faults of a
client: read slowly, stop reading, vanish. The bar above shows the server's metrics. A panel owns neither the protocol
(see `clients.py`) nor the server. Without a live kernel it is displayed as a table and as plain text, both without
times, so that a stored notebook is the same in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.clients import ChatClient, Line, MemberState, Reading, RoomClient
from chatlab.locale import _, ngettext
from chatlab.room.server import RoomServer

__all__ = ["ChatPanel", "chat_panel", "figures"]

SHOWN_LINES = 200  # of each log; the client keeps all
SHOWN_CHARACTERS = 300  # of each line: a log of long texts is redrawn whole
SMALL_BUFFER = 4096  # bytes: a server notices within seconds that a client with it has stopped reading
REDRAW_SECONDS = 0.05  # a flood redraws a panel 20 times a second, not once a message
# Newest first in the HTML, displayed from the bottom up: the newest line stays visible when the log is replaced.
WRAP = "row wrap"  # not shown: CSS
BORDER = {"border": "1px solid #8888", "padding": "0 0.5em 0.5em", "margin": "0.25em"}
LOG_STYLE = "overflow:auto;line-height:1.4;border:1px solid #8884;display:flex;flex-direction:column-reverse"
TEXT_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere"
MARKS = {"sent": _("→ sent"), "received": _("← received"), "note": "·"}

Stats = Callable[[], Mapping[str, object]]


async def chat_panel(
    url: str | Sequence[str],
    names: Sequence[str] = ("가람", "Nuri"),
    *,
    client: Callable[[str, str], ChatClient] | None = None,
    stats: Stats | None = None,
    title: str | None = None,
    burst: int = 0,
    compact: bool = False,
) -> ChatPanel:
    """Connect one client for each name and show them side by side.

    `url` is one address for all clients, or a sequence with one for each name. `client(url, name)` creates a client, by
    default one with a small receive buffer. `stats()` returns the figures of the bar. `burst` gives each client a
    button that sends a text of that many bytes. A `compact` panel has a low log, and no controls but those to send and
    to disconnect. If a client cannot connect, close the others and raise its error.
    """
    urls = [url] * len(names) if isinstance(url, str) else list(url)
    if len(urls) != len(names):
        mismatch = _("{urls} addresses for {names} names; give one address, or one for each name")
        raise ValueError(mismatch.format(urls=len(urls), names=len(names)))
    client = client or _small_client
    members = [client(*pair) for pair in zip(urls, names, strict=True)]
    panel = ChatPanel(members, client=client, stats=stats, title=title, burst=burst, compact=compact)
    try:
        for member in panel.clients:
            await member.connect()
        await panel.quiet()  # greetings come first; texts that a cell sends next follow them in every log
    except BaseException:
        await panel.aclose()
        raise
    return panel


def _small_client(url: str, name: str) -> RoomClient:
    return RoomClient(url, name, receive_buffer=SMALL_BUFFER)


def figures(server: RoomServer) -> Stats:
    """Return a function for a panel's bar: a room's members, the bytes that wait for them, messages per second."""

    def read() -> dict[str, object]:
        now = server.metrics()
        return {
            _("members"): len(now.members),
            _("bytes waiting"): f"{now.buffered:,}",
            ngettext("message/s", "messages/s", round(now.messages_per_second)): f"{now.messages_per_second:.0f}",
            _("closed as slow"): now.slow,
        }

    return read


class ChatPanel:
    """Chat clients side by side; `panel["가람"]` is a client, which a cell can use too.

    Create it inside the kernel's running event loop.
    """

    def __init__(
        self,
        clients: Sequence[ChatClient],
        *,
        client: Callable[[str, str], ChatClient] = _small_client,
        stats: Stats | None = None,
        title: str | None = None,
        burst: int = 0,
        compact: bool = False,
    ) -> None:
        self.title = _("Chat") if title is None else title
        self.burst = burst
        self.compact = compact
        self._client = client
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._columns: dict[str, _Column] = {}
        self._began: float | None = None
        self._urls = [member.url for member in clients]
        self._bar = widgets.HTML()
        self._error = widgets.HTML()
        wrapped = widgets.Layout(flex_flow="row wrap", align_items="flex-start")  # not shown: CSS
        self._row = widgets.HBox(layout=wrapped)
        self._new_name = LineToType(self._add_typed, description=_("New client"), placeholder=_("a name"), width="16em")
        self._add = widgets.Button(
            description=_("Add a client"), tooltip=_("Connect one more client to the same server")
        )
        self._add.on_click(lambda __: self._new_name.enter())
        adding = [] if compact else [widgets.HBox([self._new_name.widget, self._add])]
        self.box = widgets.VBox([self._bar, self._row, *adding, self._error])
        for member in clients:
            self._place(member)
        if stats is not None:
            self.submit(self._keep_bar)

    def __getitem__(self, name: str) -> ChatClient:
        try:
            return self._columns[name].client
        except KeyError:
            raise KeyError(_("nobody here is called {name!r}").format(name=name)) from None

    def __iter__(self) -> Iterator[ChatClient]:
        return iter(self.clients)

    @property
    def clients(self) -> list[ChatClient]:
        """The clients, in the order of their columns."""
        return [column.client for column in self._columns.values()]

    async def add(self, name: str, url: str | None = None) -> ChatClient:
        """Connect one more client, to `url` or to the first client's address, and show it."""
        if not name:
            raise ValueError(_("a client needs a name"))
        if name in self._columns:
            raise ValueError(_("{name!r} is taken; give the client another name").format(name=name))
        member = self._client(url or self._urls[0], name)
        self._place(member)
        await member.connect()
        return member

    async def remove(self, name: str) -> None:
        """Disconnect a client and remove its column."""
        column = self._columns.pop(name)
        await column.client.close()
        self._show_columns()

    async def aclose(self) -> None:
        """Disconnect every client and stop every task; the logs stay legible."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.close() for member in self.clients), return_exceptions=True)
        for column in self._columns.values():
            column.draw()

    async def quiet(self, seconds: float = 0.1, *, timeout: float = 2) -> None:
        """Wait until no client has logged anything for `seconds`; give up after `timeout`."""
        end = self._loop.time() + timeout
        while self._loop.time() < end:
            counts = [len(member.lines) for member in self.clients]
            await asyncio.sleep(seconds)
            if counts == [len(member.lines) for member in self.clients]:
                return

    def submit(self, action: Callable[[], Awaitable[None]], client: ChatClient | None = None) -> None:
        """Run `action` on the kernel's loop from a widget's callback; errors are added to the client's log."""
        self._loop.call_soon_threadsafe(self._start, action, client)

    def _start(self, action: Callable[[], Awaitable[None]], client: ChatClient | None) -> None:
        task = self._loop.create_task(self._run(action, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, action: Callable[[], Awaitable[None]], client: ChatClient | None) -> None:
        try:
            await action()
        except Exception as error:  # shown in the panel, not lost with the task
            if client is None:
                self._error.value = f"<p role='alert'>{escape(str(error))}</p>"
            elif client.state is not MemberState.CLOSED or not client.lines or str(error) not in client.lines[-1].text:
                client.note(str(error))

    def _add_typed(self, name: str) -> None:
        self._error.value = ""

        async def add() -> None:
            await self.add(name.strip())

        self.submit(add)

    def _place(self, member: ChatClient) -> None:
        self._columns[member.name] = _Column(self, member)
        self._show_columns()

    def _show_columns(self) -> None:
        self._row.children = [column.box for column in self._columns.values()]

    async def _keep_bar(self) -> None:
        assert self._stats is not None
        while True:
            figures = "".join(f"<b>{escape(str(v))}</b> {escape(k)} &nbsp; " for k, v in self._stats().items())
            server, label = escape(_("Server:")), escape(_("the server's metrics"))
            self._bar.value = f"<p role='status' aria-label='{label}'>{server} {figures}</p>"
            await asyncio.sleep(0.5)

    def since_start(self, line: Line) -> float:
        """Return the milliseconds from the first log entry of any client of this panel to `line`."""
        if self._began is None:
            self._began = min(lines[0].at for member in self.clients if (lines := member.lines))
        return (line.at - self._began) * 1000

    # Without a live kernel.

    def __repr__(self) -> str:
        return "\n".join(text for column in self._columns.values() for text in column.as_text())

    def _repr_html_(self) -> str:
        """Return the current state as a table: the form that a stored notebook shows."""
        columns = "".join(
            f"<td style='vertical-align:top;text-align:left;padding:0 1em'><b>{escape(c.client.name)}</b> "
            f"{c.client.state.value}{_log(c.client.lines)}</td>"
            for c in self._columns.values()
        )
        caption = escape(_("{title}, as it stood").format(title=self.title))
        return f"<table><caption>{caption}</caption><tr>{columns}</tr></table>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


class _Column:
    """The widgets of one client."""

    def __init__(self, panel: ChatPanel, client: ChatClient) -> None:
        self.client = client
        self._panel = panel
        self._drawing = False
        name = client.name
        self._head = widgets.HTML()
        placeholder = _("type as {name}, Enter sends").format(name=name)
        self._text = LineToType(self._send_typed, description=f"{name}:", placeholder=placeholder)
        self._send = widgets.Button(description=_("Send as {name}").format(name=name), button_style="primary")
        self._link = widgets.Button(description=_("Disconnect {name}").format(name=name))
        # Buttons, not a list: JupyterLab handles the arrow keys itself.
        self._reading = widgets.ToggleButtons(
            options=[(how.value, how) for how in Reading],
            description=_("{name} now:").format(name=name),
            tooltips=[f"{name} {how.value}" for how in Reading],
            style={"description_width": "initial", "button_width": "auto"},
        )
        self._vanish = widgets.Button(
            description=_("Make {name} vanish").format(name=name),
            tooltip=_("Drop the connection without a close, as a lost phone does"),
            layout=widgets.Layout(width="auto"),  # wide enough for the name
        )
        self._remove = widgets.Button(description=_("Remove {name}").format(name=name))
        self._log = widgets.HTML(layout=widgets.Layout(flex="1 1 20em") if panel.compact else {})
        buttons = [self._send, self._link, *self._burst_buttons()]
        typing = [self._head, self._text.widget, widgets.HBox(buttons, layout=widgets.Layout(flex_flow=WRAP))]
        self.box = self._low(typing) if panel.compact else self._tall(typing)
        self._connect_callbacks()
        self.draw()

    def _tall(self, typing: list[widgets.Widget]) -> widgets.Box:
        column = [*typing, self._log, self._reading, widgets.HBox([self._vanish, self._remove])]
        return widgets.VBox(column, layout=widgets.Layout(width="25em", **BORDER))

    def _low(self, typing: list[widgets.Widget]) -> widgets.Box:
        return widgets.HBox(
            [widgets.VBox(typing), self._log], layout=widgets.Layout(width="98%", flex_flow=WRAP, **BORDER)
        )

    def _connect_callbacks(self) -> None:
        submit, client = self._panel.submit, self.client
        self._send.on_click(lambda __: self._text.enter())
        self._link.on_click(lambda __: submit(self._toggle, client))
        self._vanish.on_click(lambda __: submit(client.vanish, client))
        self._remove.on_click(lambda __: submit(lambda: self._panel.remove(client.name), client))
        self._reading.observe(lambda change: client.read(change["new"]), "value")
        client.on_change.append(self._redraw_soon)

    def _burst_buttons(self) -> list[widgets.Button]:
        size = self._panel.burst
        if not size:
            return []
        button = widgets.Button(description=_("Send {size:,} bytes").format(size=size))
        button.on_click(lambda __: self._panel.submit(lambda: self.client.send("~" * size), self.client))
        return [button]

    def _send_typed(self, text: str) -> None:
        self._panel.submit(lambda: self.client.send(text), self.client)

    async def _toggle(self) -> None:
        if self.client.state is MemberState.OPEN:
            await self.client.close()
        else:
            await self.client.connect()

    def _redraw_soon(self) -> None:
        if not self._drawing:
            self._drawing = True
            asyncio.get_running_loop().call_later(REDRAW_SECONDS, self.draw)

    def draw(self) -> None:
        self._drawing = False
        client = self.client
        is_open = client.state is MemberState.OPEN
        how = "" if client.reading is Reading.NORMALLY else f", {client.reading.value}"
        head = f"{escape(client.name)}: {client.state.value}{how}"
        self._head.value = f"<h3 style='margin:0.3em 0;font-size:1em'>{head}</h3>"
        toggle = _("Disconnect {name}") if is_open else _("Connect {name}")
        self._link.description = toggle.format(name=client.name)
        self._send.disabled = not is_open
        self._vanish.disabled = not is_open
        if self._reading.value is not client.reading:
            self._reading.value = client.reading
        label = escape(_("log of {name}").format(name=client.name))
        self._log.value = (
            f"<div role='log' tabindex='0' aria-label='{label}' "
            f"style='height:{6 if self._panel.compact else 11}em;{LOG_STYLE}'>"
            f"{_log(client.lines, self._panel.since_start)}</div>"
        )

    def as_text(self) -> Iterator[str]:
        yield f"{self.client.name} {self.client.state.value}"
        for line in self.client.lines[-SHOWN_LINES:]:
            yield f"  {MARKS[line.way]} {line.text}"


class LineToType:
    """An input line; `on_enter(text)` is called when Enter or its button is pressed, and the line is cleared.

    The page sends the text when the line loses focus or Enter is pressed, not at every key, because it delays the
    updates of keys while the kernel is busy. "Enter" and "click" may still arrive before their text, so this class
    waits for the text: briefly if it has one, which may be older, and longer if it has none.
    """

    PATIENCE_SECONDS = 0.15
    EMPTY_PATIENCE_SECONDS = 1.0

    def __init__(
        self, on_enter: Callable[[str], None], *, description: str, placeholder: str, width: str = "22em"
    ) -> None:
        self._on_enter = on_enter
        self._timer: asyncio.TimerHandle | None = None
        self.widget = widgets.Text(
            description=description,
            placeholder=placeholder,
            continuous_update=False,
            style={"description_width": "initial"},
            layout=widgets.Layout(width=width),
        )
        self.widget.on_msg(self._on_msg)
        self.widget.observe(self._on_value, "value")

    def enter(self) -> None:
        """Call `on_enter` with the text, once it has arrived."""
        if self._timer is None:
            patience = self.PATIENCE_SECONDS if self.widget.value else self.EMPTY_PATIENCE_SECONDS
            self._timer = asyncio.get_running_loop().call_later(patience, self._take)

    def _on_msg(self, __: object, content: object, ___: object) -> None:
        if isinstance(content, dict) and content.get("event") == "submit":
            self.enter()

    def _on_value(self, change: Mapping[str, str]) -> None:
        if change["new"] and self._timer is not None:
            self._take()

    def _take(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text, self.widget.value = self.widget.value, ""
        if text:
            self._on_enter(text)


def _shown(text: str) -> str:
    """Return the beginning of a long text, and how much is left out."""
    hidden = len(text) - SHOWN_CHARACTERS
    if hidden <= 0:
        return text
    more = ngettext("… {count:,} more character", "… {count:,} more characters", hidden)
    return f"{text[:SHOWN_CHARACTERS]} {more.format(count=hidden)}"


def _log(lines: Sequence[Line], since_start: Callable[[Line], float] | None = None) -> str:
    """Return a log as HTML: newest first and with times for the live panel, else oldest first."""
    return "".join(
        "<div>"
        + (f"<small>{since_start(line):,.0f} ms</small> " if since_start else "")
        + f"{MARKS[line.way]} <span style='{TEXT_STYLE}'>{escape(_shown(line.text))}</span></div>"
        for line in (reversed(lines[-SHOWN_LINES:]) if since_start else lines[-SHOWN_LINES:])
    )
