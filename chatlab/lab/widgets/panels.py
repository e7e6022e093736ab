"""Panels: live chat clients side by side in a notebook cell.

`ChatPanel` shows each client with its state, a line to type, what it sent and received and when, and the faults one
client can have: it reads slowly, it stops reading, it vanishes. The bar above shows what the server counts. A panel
owns no protocol (that is `clients.py`) and no server. Without a live kernel it shows as a table and as plain text;
both leave the times out, so that a stored notebook stays the same from run to run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.clients import ChatClient, Line, MemberState, Reading, RoomClient
from chatlab.room.server import RoomServer

__all__ = ["ChatPanel", "chat_panel", "figures"]

SHOWN_LINES = 200  # of each log; the client keeps them all
REDRAW_SECONDS = 0.05  # a flood redraws a panel 20 times a second, not once a message
# Newest first in the page, shown from the bottom up: the newest line stays in sight though the whole is replaced.
LOG_STYLE = (
    "height:11em;overflow:auto;line-height:1.4;border:1px solid #8884;display:flex;flex-direction:column-reverse"
)
SIGNS = {"sent": "→ sent", "received": "← received", "note": "·"}

Stats = Callable[[], Mapping[str, object]]


async def chat_panel(
    url: str | Sequence[str],
    names: Sequence[str] = ("가람", "Nuri"),
    *,
    client: Callable[[str, str], ChatClient] = RoomClient,
    stats: Stats | None = None,
    title: str = "Chat",
) -> ChatPanel:
    """Connect one client for each name and show them side by side.

    `url` is where they connect: one address for all, or a sequence with one for each name. `client(url, name)` makes
    a client; `stats()` gives the figures of the bar. Raises what connecting raises; those already connected are closed.
    """
    urls = [url] * len(names) if isinstance(url, str) else list(url)
    if len(urls) != len(names):
        raise ValueError(f"{len(urls)} addresses for {len(names)} names; give one address, or one for each name")
    panel = ChatPanel(
        [client(*pair) for pair in zip(urls, names, strict=True)], client=client, stats=stats, title=title
    )
    try:
        for member in panel.clients:
            await member.connect()
        await panel.quiet()  # greetings first: what a cell sends next then follows them in every log
    except BaseException:
        await panel.aclose()
        raise
    return panel


def figures(server: RoomServer) -> Stats:
    """What the bar of a panel shows of a room: members, bytes that wait for them, and how fast it goes."""

    def read() -> dict[str, object]:
        now = server.metrics()
        return {
            "members": len(now.members),
            "bytes waiting": f"{now.buffered:,}",
            "messages/s": f"{now.messages_per_second:.0f}",
            "closed as slow": now.slow,
        }

    return read


class ChatPanel:
    """Chat clients side by side; `panel["가람"]` is a client, to be driven from a cell as well.

    Must be made inside a running event loop, the kernel's.
    """

    def __init__(
        self,
        clients: Sequence[ChatClient],
        *,
        client: Callable[[str, str], ChatClient] = RoomClient,
        stats: Stats | None = None,
        title: str = "Chat",
    ) -> None:
        self.title = title
        self._client = client
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._columns: dict[str, _Column] = {}
        self._began: float | None = None
        self._urls = [member.url for member in clients]
        self._bar = widgets.HTML()
        self._trouble = widgets.HTML()
        self._row = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap", align_items="flex-start"))
        self._new_name = LineToType(self._add_typed, description="New client", placeholder="a name", width="16em")
        self._add = widgets.Button(description="Add a client", tooltip="Connect one more client to the same server")
        self._add.on_click(lambda _: self._new_name.enter())
        self.box = widgets.VBox([self._bar, self._row, widgets.HBox([self._new_name.widget, self._add]), self._trouble])
        for member in clients:
            self._place(member)
        if stats is not None:
            self.hand_over(self._keep_bar)

    def __getitem__(self, name: str) -> ChatClient:
        return self._columns[name].client

    def __iter__(self) -> Iterator[ChatClient]:
        return iter(self.clients)

    @property
    def clients(self) -> list[ChatClient]:
        """The clients, in the order of their columns."""
        return [column.client for column in self._columns.values()]

    async def add(self, name: str, url: str | None = None) -> ChatClient:
        """Connect one more client, to `url` or to where the first one is, and show it."""
        if not name or name in self._columns:
            raise ValueError(f"a client needs a name of its own; {name!r} is empty or taken")
        member = self._client(url or self._urls[0], name)
        self._place(member)
        await member.connect()
        return member

    async def remove(self, name: str) -> None:
        """Disconnect a client and take its column away."""
        column = self._columns.pop(name)
        await column.client.close()
        self._show_columns()

    async def aclose(self) -> None:
        """Disconnect every client and stop every task; what was logged stays to be read."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.close() for member in self.clients), return_exceptions=True)
        for column in self._columns.values():
            column.draw()

    async def quiet(self, seconds: float = 0.1, *, timeout: float = 2) -> None:
        """Wait until no client has logged anything for `seconds`, at most `timeout`."""
        end = self._loop.time() + timeout
        while self._loop.time() < end:
            counts = [len(member.lines) for member in self.clients]
            await asyncio.sleep(seconds)
            if counts == [len(member.lines) for member in self.clients]:
                return

    def hand_over(self, action: Callable[[], Awaitable[None]], client: ChatClient | None = None) -> None:
        """Run `action` on the kernel's loop from a widget's callback; what it raises goes into the client's log."""
        self._loop.call_soon_threadsafe(self._own, action, client)

    def _own(self, action: Callable[[], Awaitable[None]], client: ChatClient | None) -> None:
        task = self._loop.create_task(self._run(action, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, action: Callable[[], Awaitable[None]], client: ChatClient | None) -> None:
        try:
            await action()
        except Exception as error:  # shown where the reader looks, never lost with the task
            if client is None:
                self._trouble.value = f"<p role='alert'>{escape(str(error))}</p>"
            elif client.state is not MemberState.CLOSED or not client.lines or str(error) not in client.lines[-1].text:
                client.note(str(error))

    def _add_typed(self, name: str) -> None:
        self._trouble.value = ""

        async def add() -> None:
            await self.add(name.strip())

        self.hand_over(add)

    def _place(self, member: ChatClient) -> None:
        self._columns[member.name] = _Column(self, member)
        self._show_columns()

    def _show_columns(self) -> None:
        self._row.children = [column.box for column in self._columns.values()]

    async def _keep_bar(self) -> None:
        assert self._stats is not None
        while True:
            cells = "".join(f"<b>{escape(str(v))}</b> {escape(k)} &nbsp; " for k, v in self._stats().items())
            self._bar.value = f"<p role='status' aria-label='what the server counts'>Server: {cells}</p>"
            await asyncio.sleep(0.5)

    def since_start(self, line: Line) -> float:
        """Milliseconds from the first thing any client of this panel did to `line`."""
        if self._began is None:
            self._began = min(lines[0].at for member in self.clients if (lines := member.lines))
        return (line.at - self._began) * 1000

    # Without a live kernel.

    def __repr__(self) -> str:
        return "\n".join(text for column in self._columns.values() for text in column.as_text())

    def _repr_html_(self) -> str:
        """The panel as it stands, as a table: the form a stored notebook shows."""
        columns = "".join(
            f"<td style='vertical-align:top;text-align:left;padding:0 1em'><b>{escape(c.client.name)}</b> "
            f"{c.client.state.value}{_log(c.client.lines)}</td>"
            for c in self._columns.values()
        )
        return f"<table><caption>{escape(self.title)}, as it stood</caption><tr>{columns}</tr></table>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


class _Column:
    """The widgets of one client."""

    def __init__(self, panel: ChatPanel, client: ChatClient) -> None:
        self.client = client
        self._panel = panel
        self._drawing = False
        name = client.name
        self._head = widgets.HTML()
        self._text = LineToType(self._send_typed, description=f"{name}:", placeholder=f"type as {name}, Enter sends")
        self._send = widgets.Button(description=f"Send as {name}", button_style="primary")
        self._link = widgets.Button(description=f"Disconnect {name}")
        # Buttons, not a list: JupyterLab keeps the arrow keys for itself.
        self._reading = widgets.ToggleButtons(
            options=[(how.value, how) for how in Reading],
            description=f"{name} now:",
            tooltips=[f"{name} {how.value}" for how in Reading],
            style={"description_width": "initial", "button_width": "auto"},
        )
        self._vanish = widgets.Button(
            description=f"Make {name} vanish", tooltip="Drop the connection without a close, as a lost phone does"
        )
        self._remove = widgets.Button(description=f"Remove {name}")
        self._log = widgets.HTML()
        self.box = widgets.VBox(
            [
                self._head,
                self._text.widget,
                widgets.HBox([self._send, self._link]),
                self._log,
                self._reading,
                widgets.HBox([self._vanish, self._remove]),
            ],
            layout=widgets.Layout(width="25em", border="1px solid #8888", padding="0 0.5em 0.5em", margin="0.25em"),
        )
        self._wire_up()
        self.draw()

    def _wire_up(self) -> None:
        hand_over, client = self._panel.hand_over, self.client
        self._send.on_click(lambda _: self._text.enter())
        self._link.on_click(lambda _: hand_over(self._toggle, client))
        self._vanish.on_click(lambda _: hand_over(client.vanish, client))
        self._remove.on_click(lambda _: hand_over(lambda: self._panel.remove(client.name), client))
        self._reading.observe(lambda change: client.read(change["new"]), "value")
        client.on_change.append(self._redraw_soon)

    def _send_typed(self, text: str) -> None:
        self._panel.hand_over(lambda: self.client.send(text), self.client)

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
        self._link.description = f"{'Disconnect' if is_open else 'Connect'} {client.name}"
        self._send.disabled = not is_open
        self._vanish.disabled = not is_open
        if self._reading.value is not client.reading:
            self._reading.value = client.reading
        self._log.value = (
            f"<div role='log' tabindex='0' aria-label='log of {escape(client.name)}' "
            f"style='{LOG_STYLE}'>"
            f"{_log(client.lines, self._panel.since_start)}</div>"
        )

    def as_text(self) -> Iterator[str]:
        yield f"{self.client.name} {self.client.state.value}"
        for line in self.client.lines[-SHOWN_LINES:]:
            yield f"  {SIGNS[line.way]} {line.text}"


class LineToType:
    """A line to type in; `on_enter(text)` is called when Enter or its button is pressed, and the line is emptied.

    The page sends what was typed when the line is left or Enter is pressed, not at every key: at every key it would
    hold back the newest while the kernel is busy. Even so "Enter" and "click" may come before the text they are about,
    so the text is awaited: for a moment if there is some already, which may be older, and longer if there is none.
    """

    PATIENCE_SECONDS = 0.15
    LONGER_SECONDS = 1.0

    def __init__(
        self, on_enter: Callable[[str], None], *, description: str, placeholder: str, width: str = "22em"
    ) -> None:
        self._on_enter = on_enter
        self._awaited: asyncio.TimerHandle | None = None
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
        """Hand over what was typed, once it is here."""
        if self._awaited is None:
            patience = self.PATIENCE_SECONDS if self.widget.value else self.LONGER_SECONDS
            self._awaited = asyncio.get_running_loop().call_later(patience, self._take)

    def _on_msg(self, _: object, content: object, __: object) -> None:
        if isinstance(content, dict) and content.get("event") == "submit":
            self.enter()

    def _on_value(self, change: Mapping[str, str]) -> None:
        if change["new"] and self._awaited is not None:
            self._take()

    def _take(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None
        text, self.widget.value = self.widget.value, ""
        if text:
            self._on_enter(text)


def _log(lines: Sequence[Line], since_start: Callable[[Line], float] | None = None) -> str:
    """A log as HTML: newest first with times for the live panel, else as it happened."""
    return "".join(
        "<div>"
        + (f"<small>{since_start(line):,.0f} ms</small> " if since_start else "")
        + f"{SIGNS[line.way]} <span style='white-space:pre-wrap'>{escape(line.text)}</span></div>"
        for line in (reversed(lines[-SHOWN_LINES:]) if since_start else lines[-SHOWN_LINES:])
    )
