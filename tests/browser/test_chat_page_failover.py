"""The chat page in two windows, on two real instances behind the balancer, while each instance is killed in turn."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from playwright.async_api import Browser, Page, expect

from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from tests.browser.test_chat_page import expect_contents, join, say

pytestmark = pytest.mark.long

LONG = 20_000  # ms: enough on a busy machine


@pytest_asyncio.fixture
async def cluster(fresh_redis: Engine) -> AsyncIterator[Cluster]:
    async with Cluster(fresh_redis.url, 2, options=["--notify-mentions"]) as cluster:
        await cluster.balance()
        yield cluster


async def connections(cluster: Cluster) -> list[int]:
    """Return how many clients each instance has, by its own metrics."""
    counts = []
    async with ClientSession() as http:
        for url in cluster.urls:
            async with http.get(re.sub(r"^ws(.*)/ws$", r"http\1/metrics", url)) as answer:
                match = re.search(r"^chatlab_connections (\d+)", await answer.text(), re.MULTILINE)
                assert match is not None
                counts.append(int(match[1]))
    return counts


async def two_windows_on_two_instances(chrome: Browser, cluster: Cluster) -> tuple[Page, Page, int]:
    """Open two windows through the balancer; return them and the number of the first one's instance."""
    assert cluster.balancer is not None
    url = f"http://127.0.0.1:{cluster.balancer.port}/"
    ana = await join(chrome, url, "Ana")
    first = (await connections(cluster)).index(1)
    for _ in range(8):  # the instance of a window's socket depends on how many files the window requested before
        minji = await join(chrome, url, "민지")
        if (await connections(cluster))[1 - first]:
            return ana, minji, first
        await minji.context.close()
    raise AssertionError("the balancer sent every window to one instance")


@pytest.mark.timeout(120)
async def test_killing_an_instance_between_messages_loses_no_message(chrome: Browser, cluster: Cluster) -> None:
    ana, minji, first = await two_windows_on_two_instances(chrome, cluster)
    await say(ana, "one")
    await say(minji, "two")
    for page in (ana, minji):
        await expect_contents(page, "one", "two")
    cluster.kill(first)
    await say(minji, "three")
    await say(ana, "four")
    await expect(ana.get_by_role("status")).to_contain_text("Connected", timeout=LONG)
    for page in (ana, minji):
        await expect(page.locator("#log .content")).to_have_text(["one", "two", "three", "four"], timeout=LONG)
        await expect(page.locator("#log .sending")).to_have_count(0, timeout=LONG)
    await cluster.restart(first)
    cluster.kill(1 - first)  # the restarted instance takes both windows
    await say(minji, "five")
    for page in (ana, minji):
        await expect(page.locator("#log .content")).to_have_text(["one", "two", "three", "four", "five"], timeout=LONG)
