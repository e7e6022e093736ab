"""The panel of a deployment: its buttons, pressed on real processes, and what it says about who is where."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest_asyncio

from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.ledger import ledger_of, said
from chatlab.lab.until import until
from chatlab.lab.widgets.deployment_panel import DeploymentPanel, deployment_panel

NAMES = ("가람", "Nuri")


@pytest_asyncio.fixture
async def cluster(fresh_valkey: Engine) -> AsyncIterator[Cluster]:
    async with Cluster(fresh_valkey.url, instances=2) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def panel(cluster: Cluster, fresh_valkey: Engine) -> AsyncIterator[DeploymentPanel]:
    panel = await deployment_panel(cluster, fresh_valkey, NAMES)
    yield panel
    await panel.aclose()


def widgets_of(widget: object) -> list[object]:
    children = [each for child in getattr(widget, "children", ()) for each in widgets_of(child)]
    return [widget, *children]


def press(panel: DeploymentPanel, text: str) -> None:
    button = next(each for each in widgets_of(panel.box) if getattr(each, "description", "") == text)
    button.click()  # type: ignore[attr-defined]  # found by its text: the test knows that it is a button


def shown(panel: DeploymentPanel) -> str:
    """What the live panel says, without its markup."""
    texts = (str(getattr(each, "value", "")) for each in widgets_of(panel.box))
    return re.sub(r"<[^>]*>", " ", "\n".join(texts))


async def test_the_panel_shows_who_is_connected_where_and_members_move_when_their_instance_is_killed(
    panel: DeploymentPanel,
) -> None:
    assert repr(panel).splitlines() == [
        "instance 1: ● running: 가람",
        "instance 2: ● running: Nuri",
        "Redis: ● running",
        "가람: ● open",
        "Nuri: ● open",
    ]
    press(panel, "kill -9 instance 1")
    await until(lambda: panel.at(1) == ["가람", "Nuri"])
    await until(lambda: "instance 1 : ✘ dead" in shown(panel))
    press(panel, "Start instance 1")
    await until(lambda: "instance 1 : ● running" in shown(panel), timeout=20)
    press(panel, "Cut Nuri off")
    await until(lambda: panel.nowhere() == ["Nuri"], every=0.001)
    await until(lambda: not panel.nowhere())


async def test_what_is_typed_while_everything_is_dead_waits_and_is_sent_later(
    panel: DeploymentPanel, cluster: Cluster
) -> None:
    for process in ("instance 1", "instance 2", "Redis"):
        press(panel, f"kill -9 {process}")
    await until(lambda: panel.nowhere() == ["가람", "Nuri"])
    await until(lambda: not any(instance.alive for instance in cluster.instances))
    panel.type("가람", "들려요?")
    panel.type("가람", "아무도 없어요?")
    await until(lambda: "waiting: 2 lines" in shown(panel))
    for process in ("Redis", "instance 2"):
        press(panel, f"Start {process}")
        await until(lambda process=process: f"{process} : ● running" in shown(panel), timeout=20)  # type: ignore[misc]  # mypy cannot infer a lambda's default
    await panel["Nuri"].heard("아무도 없어요?", timeout=30)
    await until(lambda: "waiting" not in shown(panel))
    assert said(panel["Nuri"]) == ["Hello! 👋", "들려요?", "아무도 없어요?"]
    assert ledger_of(panel.members).clean


async def test_a_line_is_sent_as_the_member_that_is_chosen(panel: DeploymentPanel) -> None:
    panel._typed_as.value = "Nuri"
    panel._line.widget.value = "누리입니다"
    press(panel, "Send")
    await panel["가람"].heard("Nuri: 누리입니다")


async def test_processes_are_stopped_gracefully_and_keep_what_they_have(panel: DeploymentPanel) -> None:
    panel.type("가람", "기억해요?")
    await panel["Nuri"].heard("기억해요?")
    press(panel, "Stop Redis")
    await until(lambda: "Redis : ✘ dead" in shown(panel))
    press(panel, "kill -9 Redis")  # in vain: it does nothing
    press(panel, "Start Redis")
    await until(lambda: "Redis : ● running" in shown(panel), timeout=15)
    panel.type("Nuri", "네")
    await until(lambda: ledger_of(panel.members).sent == 3 and ledger_of(panel.members).clean, timeout=15)
    press(panel, "Stop instance 2")
    await until(lambda: panel.at(0) == ["가람", "Nuri"], timeout=10)


async def test_the_stored_form_is_a_list_without_buttons(panel: DeploymentPanel) -> None:
    bundle = panel._repr_mimebundle_()
    assert "<li>instance 1: ● running: 가람</li>" in bundle["text/html"]
    assert bundle["text/plain"] == repr(panel)


async def test_a_closed_panel_leaves_no_task_and_no_member(cluster: Cluster, fresh_valkey: Engine) -> None:
    panel = await deployment_panel(cluster, fresh_valkey, NAMES)
    for instance in cluster.instances:
        instance.kill()
    await until(lambda: panel.nowhere() == list(NAMES))
    await panel.aclose()
    assert len(panel._tasks) == 0
    assert "○ closed" in repr(panel)
