"""A panel of a deployment: its instances, its Redis and its members, with kill switches and a line to type.

    panel = await lab.start("panel", deployment_panel(cluster, engine, ("가람", "Nuri", "하늘")))

Each process has a box: whether it runs, which members are connected to it, and buttons to stop, kill and start it.
Below, each member has a box with its log. What is typed goes to an outbox: while nothing runs, the line waits there,
and it is sent when a server is back. Without a kernel the panel is displayed as a list.

Where a member is connected is not guessed from the balancer's order: the server names the session in CONNECTED, and
logs that name. Left out: a server whose log level hides its sessions; its members are shown as connected, nowhere.

The first member greets the others at the start. A client that comes back names the id of the last message it received;
one that has never received any has no id to name, and would miss what was sent while it was away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from typing import Any, Self

import ipywidgets as widgets

from chatlab.lab.clients import MemberState, StompMember
from chatlab.lab.engines.cluster import Cluster, Instance
from chatlab.lab.engines.engine import Engine
from chatlab.lab.ledger import ledger_of
from chatlab.lab.outbox import Outbox
from chatlab.lab.until import until
from chatlab.lab.widgets.panels import LineToType
from chatlab.locale import _, ngettext
from chatlab.tasks import Tasks

__all__ = ["DeploymentPanel", "deployment_panel"]

logger = logging.getLogger("chatlab.lab.widgets")

REFRESH_SECONDS = 0.5  # a process that dies does not announce it
REDRAW_SECONDS = 0.05
SECONDS_TO_FIND_MEMBERS = 2.0
SHOWN_LINES = 50
BOX = {"border": "1px solid #8888", "padding": "0 0.5em 0.5em", "margin": "0.2em"}
PROCESS_WIDTH, MEMBER_WIDTH = "13em", "17em"  # three processes side by side in a notebook 1024 pixels wide
WRAP = "row wrap"  # not shown: CSS
LOG_STYLE = "height:7em;overflow:auto;line-height:1.4;display:flex;flex-direction:column-reverse"


async def deployment_panel(
    cluster: Cluster, engine: Engine | None = None, names: Sequence[str] = ("가람", "Nuri", "하늘")
) -> DeploymentPanel:
    """Connect a member for each name through the cluster's balancer, and return the panel.

    `engine` is the cluster's Redis; None if it has none. If a member cannot connect, close the others and raise its
    error.
    """
    url = (await cluster.balance()).url
    panel = DeploymentPanel(cluster, engine, [StompMember(url, name) for name in names])
    try:
        return await panel.start()
    except BaseException:
        await panel.aclose()
        raise


class DeploymentPanel:
    """Processes and members in one panel; `panel["가람"]` is a member. Create it inside the kernel's event loop.

    Closing it disconnects the members; the owner of the cluster and of the engine stops those.
    """

    def __init__(self, cluster: Cluster, engine: Engine | None, members: Sequence[StompMember]) -> None:
        self.members = list(members)
        self.outboxes = {member.name: Outbox(member) for member in members}
        self._cluster = cluster
        self._homes: dict[str, Instance] = {}  # by session
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(logger)
        self._redraw: asyncio.TimerHandle | None = None
        self._error = ""
        self.processes = [_instance_box(self, each) for each in cluster.instances]
        if engine is not None:
            self.processes.append(_engine_box(self, engine))
        self._columns = [_MemberBox(self, member) for member in members]
        self._nowhere, self._status = widgets.HTML(), widgets.HTML()
        self._typed_as = widgets.ToggleButtons(
            options=[member.name for member in members],
            description=_("Type as"),
            tooltips=[_("Type as {name}").format(name=member.name) for member in members],
            style={"description_width": "initial", "button_width": "auto"},
        )
        self._line = LineToType(self._put, description=_("Message:"), placeholder=_("Enter sends"))
        self._send = widgets.Button(description=_("Send"), button_style="primary")
        self._send.on_click(lambda __: self._line.enter())
        self.box = widgets.VBox([*self._rows()])

    def _rows(self) -> Iterator[widgets.Widget]:
        wrapped = widgets.Layout(flex_flow=WRAP, align_items="flex-start")  # not shown: CSS
        yield widgets.HBox([each.box for each in self.processes], layout=wrapped)
        yield self._nowhere
        yield self._typed_as
        yield widgets.HBox([self._line.widget, self._send], layout=wrapped)
        yield widgets.HBox([each.box for each in self._columns], layout=wrapped)
        yield self._status

    async def start(self) -> Self:
        """Connect every member, let the first greet the others, and keep the panel up to date."""
        for member in self.members:
            await member.connect()
            member.on_change.append(self._redraw_soon)
            await self.outboxes[member.name].start()
        greeting = _("Hello! 👋")
        await self.members[0].send(greeting)
        await asyncio.gather(*(member.heard(greeting) for member in self.members))
        with suppress(TimeoutError):  # a server's log arrives a moment after CONNECTED, if it logs that at all
            await until(lambda: not self.nowhere(), timeout=SECONDS_TO_FIND_MEMBERS)
        self._draw()
        self._tasks.start(self._refresh(), name="deployment-panel")
        return self

    async def aclose(self) -> None:
        """Stop refreshing, and disconnect the members; the logs stay legible."""
        await self._tasks.aclose()
        await asyncio.gather(*(outbox.aclose() for outbox in self.outboxes.values()))
        await asyncio.gather(*(member.close() for member in self.members), return_exceptions=True)
        if self._redraw is not None:
            self._redraw.cancel()
        self._draw()

    def __getitem__(self, name: str) -> StompMember:
        return next(member for member in self.members if member.name == name)

    def type(self, name: str, text: str) -> None:
        """Type a line as one member; it is sent at once or, while nothing can be sent, as soon as something can."""
        self.outboxes[name].put(text)
        self._redraw_soon()

    def at(self, number: int) -> list[str]:
        """Return the names of the members that are connected to instance `number`, counted from 0."""
        instance = self._cluster.instances[number]
        return [member.name for member in self.members if self._home(member) is instance]

    def nowhere(self) -> list[str]:
        """Return the names of the members that are connected to no instance, as far as is known."""
        return [member.name for member in self.members if self._home(member) is None]

    def _home(self, member: StompMember) -> Instance | None:
        """Return the instance that a member is connected to."""
        session = member.session
        if session and session not in self._homes:
            self._homes.update((session, each) for each in self._cluster.instances if each.holds(session))
        home = self._homes.get(session)
        return home if home is not None and home.alive else None

    # Callbacks of widgets: they hand over to the kernel's loop.

    def submit(self, action: Callable[[], Awaitable[object]]) -> None:
        """Run `action` on the kernel's loop; an error is shown in the panel."""
        self._loop.call_soon_threadsafe(lambda: self._tasks.start(self._run(action), name="button"))

    async def _run(self, action: Callable[[], Awaitable[object]]) -> None:
        self._error = ""
        try:
            await action()
        except Exception as error:  # shown in the panel, not lost with the task
            self._error = str(error)
        self._draw()

    def _put(self, text: str) -> None:
        self.type(self._typed_as.value, text)

    # Drawing.

    async def _refresh(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(REFRESH_SECONDS)

    def _redraw_soon(self) -> None:
        if self._redraw is None:
            self._redraw = self._loop.call_later(REDRAW_SECONDS, self._draw)

    def _draw(self) -> None:
        self._redraw = None
        for process in self.processes:
            process.draw()
        for column in self._columns:
            column.draw()
        nowhere = self.nowhere()
        lost = _("Connected to no server: {names}").format(names=", ".join(nowhere)) if nowhere else ""
        self._nowhere.value = f"<p role='status'>{escape(lost)}</p>"
        error = f"<p role='alert'>{escape(self._error)}</p>" if self._error else ""
        self._status.value = f"<p role='status'>{escape(str(ledger_of(self.members)))}</p>{error}"

    # Without a live kernel.

    def lines(self) -> list[str]:
        """Return the panel as lines of text: a line for each process, and one for each member."""
        return [str(each) for each in (*self.processes, *self._columns)]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in self.lines())}</ul>"

    def _repr_mimebundle_(self, **__: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


class ProcessBox:
    """A process: its state, who is connected to it, and the buttons that stop, kill and start it.

    `members` returns the names of the members connected to it; None for a process that has no members.
    """

    def __init__(
        self,
        panel: DeploymentPanel,
        name: str,
        process: Instance | Engine,
        stop: Callable[[], Awaitable[object]],
        start: Callable[[], Awaitable[object]],
        members: Callable[[], list[str]] | None,
    ) -> None:
        self.name = name
        self._process = process
        self._do_start, self._do_stop = start, stop
        self._changing = asyncio.Lock()  # a start waits for the stop before it
        self._members = members
        self._starting = False
        self._head = widgets.HTML()
        buttons = [
            self._button(panel, _("Stop {name}"), _("SIGTERM: {name} finishes its work first"), self._stop),
            self._button(panel, "kill -9 {name}", _("SIGKILL: {name} is dead at once"), self._kill),
            self._button(panel, _("Start {name}"), _("Start {name} again, on its port"), self._start),
        ]
        self.box = widgets.VBox([self._head, *buttons], layout=widgets.Layout(**BOX, width=PROCESS_WIDTH))
        self.draw()

    def _button(
        self, panel: DeploymentPanel, text: str, tooltip: str, act: Callable[[], Awaitable[object]]
    ) -> widgets.Button:
        # Never disabled: a button that is pressed would lose the keyboard's focus. Pressed in vain, it does nothing.
        button = widgets.Button(
            description=text.format(name=self.name),
            tooltip=tooltip.format(name=self.name),
            layout=widgets.Layout(width="auto"),
        )
        button.on_click(lambda __: panel.submit(act))
        return button

    async def _stop(self) -> None:
        async with self._changing:
            await self._do_stop()

    async def _kill(self) -> None:
        if self._process.alive and not self._starting:
            await asyncio.to_thread(self._process.kill)

    async def _start(self) -> None:
        async with self._changing:
            if self._process.alive:
                return
            self._starting = True
            self.draw()
            try:
                await self._do_start()
            finally:
                self._starting = False

    @property
    def state(self) -> str:
        """The state of the process, in words after a symbol."""
        if self._starting:
            return _("◌ starting")
        return _("● running") if self._process.alive else _("✘ dead")

    def draw(self) -> None:
        """Show the current state and members."""
        members = ""
        if self._members is not None:
            names = self._members() if self._process.alive else []
            members = f"<div>{escape(', '.join(names) or _('nobody'))}</div>"
        self._head.value = f"<div role='status'><b>{escape(self.name)}</b>: {escape(self.state)}{members}</div>"

    def __str__(self) -> str:
        if self._members is None:
            return f"{self.name}: {self.state}"
        return f"{self.name}: {self.state}: {', '.join(self._members()) or _('nobody')}"


def _instance_box(panel: DeploymentPanel, instance: Instance) -> ProcessBox:
    name = _("instance {number}").format(number=instance.number + 1)
    return ProcessBox(panel, name, instance, instance.stop, instance.start, partial(panel.at, instance.number))


def _engine_box(panel: DeploymentPanel, engine: Engine) -> ProcessBox:
    return ProcessBox(panel, "Redis", engine, engine.shut_down, engine.restart, None)


class _MemberBox:
    """A member: its state, how many lines wait in its outbox, and its log, newest line last."""

    def __init__(self, panel: DeploymentPanel, member: StompMember) -> None:
        self._member = member
        self._outbox = panel.outboxes[member.name]
        self._head, self._log = widgets.HTML(), widgets.HTML()
        cut = widgets.Button(
            description=_("Cut {name} off").format(name=member.name),
            tooltip=_("Lose the connection, as a phone does in a tunnel; it comes back by itself"),
            layout=widgets.Layout(width="auto"),
        )
        cut.on_click(lambda __: panel.submit(self._cut_off))
        self.box = widgets.VBox([self._head, self._log, cut], layout=widgets.Layout(**BOX, width=MEMBER_WIDTH))
        self.draw()

    async def _cut_off(self) -> None:
        if self._member.state is MemberState.CLOSED:
            await self._member.connect()
        else:
            self._member.drop()

    @property
    def waiting(self) -> str:
        """How many lines wait, in words; "" if none does."""
        count = len(self._outbox.waiting)
        return ngettext("waiting: {count} line", "waiting: {count} lines", count).format(count=count) if count else ""

    def draw(self) -> None:
        member = self._member
        name = escape(member.name)
        waiting = f"<div>{escape(self.waiting)}</div>" if self.waiting else ""
        self._head.value = f"<div role='status'><b>{name}</b>: {escape(member.state.value)}{waiting}</div>"
        label = escape(_("log of {name}").format(name=member.name))
        lines = "".join(f"<div>{escape(line)}</div>" for line in reversed(self._lines()))
        self._log.value = f"<div role='log' tabindex='0' aria-label='{label}' style='{LOG_STYLE}'>{lines}</div>"

    def _lines(self) -> list[str]:
        """Return the log's last lines, and behind them the lines that wait."""
        marks = {"sent": "→", "received": "←", "note": "·"}
        log = [f"{marks[line.way]} {line.text}" for line in self._member.lines[-SHOWN_LINES:]]
        return [*log, *(f"… {text}" for text in self._outbox.waiting)]

    def __str__(self) -> str:
        return ", ".join(filter(None, [f"{self._member.name}: {self._member.state.value}", self.waiting]))
