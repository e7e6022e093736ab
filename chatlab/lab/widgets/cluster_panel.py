"""A panel to kill servers with: every instance of a cluster and its Redis, while members chat and a ledger counts.

It shows what is alive, in words and not by colour alone; each button kills or brings back one thing. Without a kernel
it shows as a list.
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

__all__ = ["ClusterPanel", "cluster_panel"]

LOOK_SECONDS = 0.5


async def cluster_panel(
    cluster: Cluster, engine: Engine | None = None, clients: Sequence[StompMember] = ()
) -> ClusterPanel:
    """A panel for `cluster`, its engine, and the members whose messages are to be counted."""
    return ClusterPanel(cluster, engine, clients)


class ClusterPanel:
    """Buttons that kill and bring back, and what is alive. Must be made inside the kernel's event loop."""

    def __init__(self, cluster: Cluster, engine: Engine | None, clients: Sequence[StompMember]) -> None:
        self._cluster = cluster
        self._engine = engine
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: str = ""
        self._state = widgets.HTML()
        rows = [
            self._row(
                f"instance {each.number + 1}", partial(cluster.kill, each.number), partial(cluster.restart, each.number)
            )
            for each in cluster.instances
        ]
        if engine is not None:
            rows.append(self._row("Redis", engine.kill, engine.restart))
        self.box = widgets.VBox([self._state, *rows])
        self._draw()
        self._own(self._look())

    def _row(self, name: str, kill: Callable[[], Any], bring: Callable[[], Awaitable[Any]]) -> widgets.HBox:
        killing = widgets.Button(description=f"Kill {name}", tooltip=f"SIGKILL for {name}: no goodbye")
        bringing = widgets.Button(description=f"Bring back {name}", layout=widgets.Layout(width="14em"))

        async def kill_it() -> None:
            kill()

        killing.on_click(lambda _: self._hand_over(kill_it))
        bringing.on_click(lambda _: self._hand_over(bring))
        return widgets.HBox([killing, bringing])

    async def aclose(self) -> None:
        """Stop looking; the cluster is its owner's to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def states(self) -> list[tuple[str, bool]]:
        """What there is, and whether it is alive."""
        parts = [(f"instance {each.number + 1}", each.alive) for each in self._cluster.instances]
        return parts if self._engine is None else [*parts, ("Redis", self._engine.alive)]

    def _hand_over(self, action: Callable[[], Awaitable[Any]]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._own(self._run(action)))

    def _own(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, action: Callable[[], Awaitable[Any]]) -> None:
        try:
            self._told = ""
            await action()
        except Exception as error:  # shown where the reader looks, never lost with the task
            self._told = str(error)
        self._draw()

    async def _look(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(LOOK_SECONDS)

    def _draw(self) -> None:
        parts = " &nbsp; ".join(f"<b>{name}</b> {'● alive' if alive else '✘ dead'}" for name, alive in self.states())
        counted = f"<p>{ledger_of(self._clients)}</p>" if self._clients else ""
        told = f"<p role='alert'>{escape(self._told)}</p>" if self._told else ""
        self._state.value = f"<div role='status'><p>{parts}</p>{counted}{told}</div>"

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {'alive' if alive else 'dead'}" for name, alive in self.states())

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{name}: {'● alive' if alive else '✘ dead'}</li>" for name, alive in self.states())
        return f"<ul>{rows}</ul>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}
