"""The panel that kills servers, on a real cluster."""

from collections.abc import AsyncIterator

import pytest_asyncio

from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from chatlab.lab.widgets.cluster_panel import ClusterPanel, cluster_panel


@pytest_asyncio.fixture
async def panel(fresh_redis: Engine) -> AsyncIterator[ClusterPanel]:
    async with Cluster(fresh_redis.url, instances=1) as cluster:
        panel = await cluster_panel(cluster, fresh_redis)
        yield panel
        await panel.aclose()


def click(panel: ClusterPanel, text: str) -> None:
    rows = [button for row in panel.box.children[1:] for button in row.children]
    next(button for button in rows if button.description == text).click()


async def test_buttons_kill_and_restart_an_instance_and_redis(panel: ClusterPanel) -> None:
    assert repr(panel) == "instance 1: alive\nRedis: alive"
    click(panel, "Kill instance 1")
    await until(lambda: panel.states()[0] == ("instance 1", False))
    click(panel, "Kill Redis")
    await until(lambda: panel.states()[1] == ("Redis", False))
    assert "✘ dead" in panel._repr_html_()
    click(panel, "Bring back Redis")
    await until(lambda: panel.states()[1] == ("Redis", True), timeout=15)
    click(panel, "Bring back instance 1")
    await until(lambda: panel.states()[0] == ("instance 1", True), timeout=20)


async def test_the_stored_form_says_in_words_which_processes_are_alive(panel: ClusterPanel) -> None:
    bundle = panel._repr_mimebundle_()
    assert "● alive" in bundle["text/html"]
    assert bundle["text/plain"] == repr(panel)
