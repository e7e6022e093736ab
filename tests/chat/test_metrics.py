"""The page for Prometheus: its exact text, and that each metric counts what its name says."""

from __future__ import annotations

from aiohttp import ClientSession

from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.metrics import Histogram, exposition
from tests.support.stomp_peer import Peer, chat

SEND = "/app/chat.sendMessage"

PAGE = """\
# TYPE chatlab_messages_total counter
chatlab_messages_total 12345678
# TYPE chatlab_share gauge
chatlab_share 0.25
# TYPE chatlab_publish_seconds histogram
chatlab_publish_seconds_bucket{le="0.0005"} 0
chatlab_publish_seconds_bucket{le="0.001"} 0
chatlab_publish_seconds_bucket{le="0.0025"} 0
chatlab_publish_seconds_bucket{le="0.005"} 1
chatlab_publish_seconds_bucket{le="0.01"} 3
chatlab_publish_seconds_bucket{le="0.025"} 3
chatlab_publish_seconds_bucket{le="0.05"} 3
chatlab_publish_seconds_bucket{le="0.1"} 3
chatlab_publish_seconds_bucket{le="0.25"} 3
chatlab_publish_seconds_bucket{le="0.5"} 3
chatlab_publish_seconds_bucket{le="1.0"} 3
chatlab_publish_seconds_bucket{le="2.5"} 3
chatlab_publish_seconds_bucket{le="5.0"} 3
chatlab_publish_seconds_bucket{le="10.0"} 3
chatlab_publish_seconds_bucket{le="+Inf"} 4
chatlab_publish_seconds_sum 60.020000
chatlab_publish_seconds_count 4
"""


def test_the_metrics_page_is_in_the_text_format() -> None:
    histogram = Histogram()
    for seconds in (0.005, 0.006, 0.009, 60.0):  # a bound is in its own bucket: `le` is "less or equal"
        histogram.observe(seconds)
    assert exposition({"messages_total": 12345678}, {"share": 0.25}, {"publish_seconds": histogram}) == PAGE


async def values(server: ChatServer) -> dict[str, float]:
    """Return the page as a scraper reads it: each sample's name and value."""
    async with ClientSession() as http, http.get(f"{server.page_url}metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = (await response.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


async def test_each_metric_counts_what_its_name_says(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other, Peer(server.url) as third:
        for peer in (one, other):
            await peer.subscribe("/topic/public")
        await third.subscribe("/topic/room.cats")
        for content in ("a", "b"):
            await one.say(content)
        await one.say("nobody reads this", "dogs")
        await one.send("SEND", chat(""), destination=SEND)  # refused: the message is empty
        assert await one.contents(2) == await other.contents(2) == ["a", "b"]
        await one.nothing_more()
        seen = await values(server)
        expected = {
            "connections_opened_total": 3,
            "connections": 3,
            "messages_published_total": 3,
            "publish_seconds_count": 3,
            "messages_refused_total": 1,
            "messages_relayed_total": 2,
            "deliveries_total": 4,
            "messages_unavailable_total": 0,
            "slow_readers_closed_total": 0,
            "clients_limited_total": 0,
            "topics": 2,
            "ready": 1,
        }
        assert {name: seen[f"chatlab_{name}"] for name in expected} == expected
    seen = await values(server)
    assert (seen["chatlab_connections"], seen["chatlab_topics"]) == (0, 0)
    assert seen["chatlab_connections_opened_total"] == 3


async def test_the_slowest_publish_is_only_in_the_last_bucket(server: ChatServer) -> None:
    server.service.metrics.publishing.observe(11.0)
    seen = await values(server)
    assert seen['chatlab_publish_seconds_bucket{le="10.0"}'] == 0
    assert seen['chatlab_publish_seconds_bucket{le="+Inf"}'] == seen["chatlab_publish_seconds_count"] == 1
