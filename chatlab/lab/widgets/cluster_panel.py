"""A panel that kills servers: every instance of a cluster and its Redis, while members chat and a ledger counts.

It shows which processes are alive, in words and not by colour alone; each button kills or restarts one. Without a
kernel it is displayed as a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.clients import StompMember
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.ledger import ledger_of
from chatlab.locale import _

__all__ = ["ClusterPanel", "cluster_panel"]

REFRESH_SECONDS = 0.5


async def cluster_panel(
    cluster: Cluster, engine: Engine | None = None, clients: Sequence[StompMember] = ()
) -> ClusterPanel:
    """Return a panel for `cluster`, its engine, and the members whose messages are counted."""
    return ClusterPanel(cluster, engine, clients)


class ClusterPanel:
    """Buttons that kill and restart processes, and the state of each. Create it inside the kernel's event loop."""

    def __init__(self, cluster: Cluster, engine: Engine | None, clients: Sequence[StompMember]) -> None:
        self._cluster = cluster
        self._engine = engine
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error = ""
        self._state = widgets.HTML()
        rows = [
            self._row(_instance(each.number), partial(cluster.kill, each.number), partial(cluster.restart, each.number))
            for each in cluster.instances
        ]
        if engine is not None:
            rows.append(self._row("Redis", engine.kill, engine.restart))
        self.box = widgets.VBox([self._state, *rows])
        self._draw()
        self._start(self._refresh())

    def _row(self, name: str, kill: Callable[[], Any], restart: Callable[[], Awaitable[Any]]) -> widgets.HBox:
        kill_button = widgets.Button(
            description=_("Kill {name}").format(name=name),
            tooltip=_("SIGKILL for {name}, without a warning").format(name=name),
        )
        restart_button = widgets.Button(
            description=_("Bring back {name}").format(name=name), layout=widgets.Layout(width="14em")
        )

        async def kill_it() -> None:
            kill()

        kill_button.on_click(lambda __: self._submit(kill_it))
        restart_button.on_click(lambda __: self._submit(restart))
        return widgets.HBox([kill_button, restart_button])

    async def aclose(self) -> None:
        """Stop refreshing; the owner of the cluster closes it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def states(self) -> list[tuple[str, bool]]:
        """Return the name of each process, and whether it is alive."""
        parts = [(_instance(each.number), each.alive) for each in self._cluster.instances]
        return parts if self._engine is None else [*parts, ("Redis", self._engine.alive)]

    def _submit(self, action: Callable[[], Awaitable[Any]]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._start(self._run(action)))

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, action: Callable[[], Awaitable[Any]]) -> None:
        try:
            self._error = ""
            await action()
        except Exception as error:  # shown in the panel, not lost with the task
            self._error = str(error)
        self._draw()

    async def _refresh(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(REFRESH_SECONDS)

    def _draw(self) -> None:
        parts = " &nbsp; ".join(f"<b>{name}</b> {_marked(alive)}" for name, alive in self.states())
        ledger = f"<p>{ledger_of(self._clients)}</p>" if self._clients else ""
        error = f"<p role='alert'>{escape(self._error)}</p>" if self._error else ""
        self._state.value = f"<div role='status'><p>{parts}</p>{ledger}{error}</div>"

    def __repr__(self) -> str:
        alive, dead = _("alive"), _("dead")
        return "\n".join(f"{name}: {alive if is_alive else dead}" for name, is_alive in self.states())

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{name}: {_marked(alive)}</li>" for name, alive in self.states())
        return f"<ul>{rows}</ul>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _instance(number: int) -> str:
    return _("instance {number}").format(number=number + 1)


def _marked(alive: bool) -> str:
    return _("● alive") if alive else _("✘ dead")
