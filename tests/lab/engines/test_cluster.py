"""Real `chatlab serve chat` processes on one broker: killed, restarted, drained, balanced, never left running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidMessage

from chatlab.errors import SetupError
from chatlab.lab.engines.cluster import Balancer, Cluster
from chatlab.lab.engines.engine import Engine
from tests.original.client import Client
from tests.support.processes import wait_until_ended
from tests.support.stomp_peer import Peer

ROOM = "/topic/public"


@pytest.fixture(scope="module")
def processes(redis_engine: Engine) -> Iterator[Cluster]:
    """Start two instances for all tests here, because starting takes longest."""
    cluster = Cluster(redis_engine.url, instances=2)
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.aclose())


@pytest.fixture
async def cluster(processes: Cluster) -> AsyncIterator[Cluster]:
    """Yield two running instances; afterwards restore them for the next test."""
    yield processes
    if processes.balancer is not None:
        await processes.balancer.aclose()
        processes.balancer = None
    for added in processes.instances[2:]:
        await added.stop()
        added.release()
        processes.instances.remove(added)
    for instance in processes.instances:
        if not instance.alive:
            await instance.start()


# The same chat over every engine that connects processes.


@pytest.mark.parametrize(
    ("engine", "scheme"),
    [
        pytest.param("redis_on_path", "redis", marks=pytest.mark.long),
        ("valkey_engine", "redis"),
        pytest.param("redis_on_path", "redis-pubsub", marks=pytest.mark.long),
        ("valkey_engine", "redis-pubsub"),
        ("rabbitmq_engine", "amqp"),
        ("kafka_engine", "kafka"),
    ],
)
async def test_one_chat_runs_over_two_instances(engine: str, scheme: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(engine).url
    async with Cluster(f"{scheme}://{url.partition('://')[2]}") as cluster:
        one, two = cluster.urls
        async with Peer(one, "Ana") as ana, Peer(two, "Ben") as ben:
            for peer in (ana, ben):
                await peer.subscribe(ROOM)
            await ana.say("안녕 🙂")
            await ben.say("hello")
            for peer in (ana, ben):
                assert sorted(await peer.contents(2)) == ["hello", "안녕 🙂"]
                await peer.nothing_more()


async def test_a_cluster_of_rooms_is_one_room(redis_engine: Engine) -> None:
    async with Cluster(redis_engine.url, serve="room") as cluster:
        one, two = cluster.urls
        async with connect(f"{one}?name=Ana", proxy=None) as ana, connect(f"{two}?name=Ben", proxy=None) as ben:
            await ana.send("안녕 🙂")
            for member in (ana, ben):
                async with asyncio.timeout(5):
                    while await member.recv() != "Server received from Ana: 안녕 🙂":
                        pass


async def test_the_articles_build_runs_as_processes_too(fresh_redis: Engine) -> None:
    build = Cluster(fresh_redis.url, options=["--as-in-the-article", "second"])
    async with build as cluster, Client(cluster.urls[0]) as ana:
        await ana.subscribe()
        await ana.say("hello")
        await ana.until(1)
        assert ana.contents() == ["hello"]  # straight from the controller: there is no group to read the stream with


# Killing, restarting, stopping.


async def test_a_killed_instance_disconnects_its_own_clients_only(cluster: Cluster) -> None:
    one, two = cluster.urls
    async with Peer(one) as ana, Peer(two) as ben:
        await ben.subscribe(ROOM)
        cluster.kill(0)
        assert await ana.close_code() == 1006  # RFC 6455, 7.4.1: closed "without sending or receiving a Close"
        await ben.say("still here")
        assert await ben.contents(1) == ["still here"]
    assert [instance.alive for instance in cluster.instances] == [False, True]
    assert repr(cluster) == "1 of 2 instances alive"


async def test_a_restarted_instance_has_its_old_port_and_is_in_the_same_chat(cluster: Cluster) -> None:
    urls, pid = cluster.urls, cluster.instances[0].pid
    cluster.kill(0)
    with pytest.raises(OSError):
        await Peer(urls[0]).open()
    await cluster.restart(0)
    assert cluster.urls == urls
    assert cluster.instances[0].pid != pid
    async with Peer(urls[0]) as ana, Peer(urls[1]) as ben:
        await ana.subscribe(ROOM)
        await ben.say("welcome back")
        assert await ana.contents(1) == ["welcome back"]


async def test_the_port_of_a_dead_instance_stays_reserved(cluster: Cluster) -> None:
    cluster.kill(0)
    if sys.platform != "linux":
        pytest.skip("the ports of dead instances are reserved on Linux only")
    with pytest.raises(OSError), socket.socket() as other:
        other.bind(("127.0.0.1", cluster.instances[0].port))
    await cluster.restart(0)


async def test_a_stopped_instance_drains_and_closes_with_1001(cluster: Cluster) -> None:
    async with Peer(cluster.urls[0]) as ana:
        stopping = asyncio.create_task(cluster.stop(0))
        assert await ana.close_code() == 1001
        assert await stopping == 0
    assert await cluster.stop(0) is None  # it was dead already


@pytest.mark.long
async def test_during_a_rolling_restart_some_instance_always_accepts_connections(cluster: Cluster) -> None:
    pids = [instance.pid for instance in cluster.instances]
    balancer = await cluster.balance()
    rolling = asyncio.create_task(cluster.rolling_restart())
    while not rolling.done():
        with contextlib.suppress(
            ConnectionClosedOK, InvalidMessage
        ):  # the instance it reached is stopping: connect again
            async with Peer(balancer.url) as ana:
                await ana.say("an instance is there")
    await rolling
    assert all(new not in (old, None) for new, old in zip((i.pid for i in cluster.instances), pids, strict=True))


async def test_the_log_of_an_instance_is_kept_across_restarts(cluster: Cluster) -> None:
    instance = cluster.instances[0]
    await cluster.stop(0)
    instance.log.append("the end of its first run")
    await instance.start()
    log = list(instance.log)
    assert f"listening on {instance.url}" in log[log.index("the end of its first run") :]


async def test_a_failed_start_reports_the_instances_last_line_and_stops_the_others() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}"
        cluster = Cluster(url)
        with pytest.raises(SetupError, match=r"ended with status 3: chatlab: the broker at redis://127\.0\.0\.1"):
            await cluster.start()
    assert not any(instance.alive for instance in cluster.instances)


async def test_closing_a_cluster_leaves_no_process(fresh_redis: Engine) -> None:
    cluster = await Cluster(fresh_redis.url).start()
    pids = [instance.pid for instance in cluster.instances]
    await cluster.aclose()
    await cluster.aclose()  # twice is fine
    for pid in pids:
        assert pid is not None
        wait_until_ended(pid)


def test_the_instances_end_when_their_parent_is_killed(redis_engine: Engine) -> None:
    parent = f"""
        import asyncio
        from chatlab.lab.engines.cluster import Cluster
        async def main():
            cluster = await Cluster({redis_engine.url!r}).start()
            print(*[instance.pid for instance in cluster.instances], flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    for pid in pids:
        wait_until_ended(pid)


def test_a_cluster_outlives_the_loop_it_was_started_on(redis_engine: Engine) -> None:
    cluster = Cluster(redis_engine.url, instances=1)
    asyncio.run(cluster.start())
    assert cluster.instances[0].alive
    asyncio.run(cluster.restart(0))
    asyncio.run(cluster.aclose())
    assert not cluster.instances[0].alive


# The balancer.


async def test_the_balancer_sends_connections_to_the_instances_in_turn(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    async with Peer(balancer.url), Peer(balancer.url), Peer(balancer.url), Peer(balancer.url):
        assert [await connections(url) for url in cluster.urls] == [2, 2]


async def test_the_balancer_skips_dead_instances_and_includes_restarted_ones(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    cluster.kill(0)
    async with Peer(balancer.url), Peer(balancer.url):
        assert await connections(cluster.urls[1]) == 2
    await cluster.restart(0)
    async with Peer(balancer.url), Peer(balancer.url):
        assert await connections(cluster.urls[0]) == 1


async def test_the_balancer_includes_an_added_instance(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    added = await cluster.add()
    async with Peer(balancer.url), Peer(balancer.url), Peer(balancer.url):
        assert await connections(added.url) == 1


async def test_a_balanced_client_is_closed_at_once_when_its_instance_is_killed(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    async with Peer(balancer.url) as ana:
        for instance in cluster.instances:
            instance.kill()
        assert await ana.close_code() == 1006


async def test_an_instance_notices_at_once_that_a_balanced_client_has_vanished(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    peer = await Peer(balancer.url).open()
    peer.websocket.transport.abort()
    async with asyncio.timeout(10):
        while [await connections(url) for url in cluster.urls] != [0, 0]:
            pass


async def test_the_balancer_answers_503_when_all_instances_are_dead(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    for number in (0, 1):
        cluster.kill(number)
    async with aiohttp.ClientSession() as session, session.get(page(balancer.url, "/healthz")) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"


async def test_a_cluster_is_scaled_up_and_down(cluster: Cluster) -> None:
    for count in (1, 3, 2):
        await cluster.scale(count)
        assert [instance.alive for instance in cluster.instances] == [
            number < count for number in range(len(cluster.instances))
        ]


async def test_the_chats_page_is_reached_through_the_balancer(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    async with aiohttp.ClientSession() as session, session.get(balancer.page_url) as answer:
        assert answer.status == 200
        assert "<title>" in await answer.text()


async def connections(url: str) -> int:
    """Return the number of clients of an instance, by its own count."""
    async with aiohttp.ClientSession() as session, session.get(page(url, "/metrics")) as answer:
        (line,) = [line for line in (await answer.text()).splitlines() if line.startswith("chatlab_connections ")]
    return int(float(line.split()[1]))


def page(url: str, path: str) -> str:
    return url.replace("ws:", "http:").removesuffix("/ws") + path


@pytest.fixture
async def named() -> AsyncIterator[list[str]]:
    """Yield three plain HTTP servers that answer every request with their number and the length of its body."""
    runners, urls = [], []
    for number in range(3):
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{anything:.*}", answer_with(number))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        urls.append(f"ws://127.0.0.1:{runner.addresses[0][1]}/ws")
    yield urls
    for runner in runners:
        await runner.cleanup()


def answer_with(number: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"server": number, "octets": len(await request.read())})

    return answer


async def ask(session: aiohttp.ClientSession, url: str, data: bytes | None = None) -> tuple[int, int]:
    """POST to a URL; return the number of the server that answered, and the octets it received."""
    async with session.post(url, data=data) as answer:
        body = json.loads(await answer.read())
    return body["server"], body["octets"]


def on_one_connection() -> aiohttp.ClientSession:
    """Return a session that uses a single connection, as the most frugal browser would."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))


async def test_the_requests_of_one_sockjs_session_reach_one_server(named: list[str]) -> None:
    async with await Balancer.start(named) as balancer, on_one_connection() as session:
        chosen: list[int] = []
        for number in range(20):
            base = page(balancer.url, f"/ws/{number:03}/s{number}")
            paths = ["/xhr", "/xhr_send", "/xhr_streaming?t=1", "/xhr_send", "/eventsource"]
            servers = {(await ask(session, base + path))[0] for path in paths}
            assert len(servers) == 1
            chosen += servers
    assert set(chosen) == {0, 1, 2}, "all sessions went to the same server"


async def test_a_sockjs_session_moves_when_its_server_dies(named: list[str]) -> None:
    with socket.socket() as closed:  # in place of one of the three
        closed.bind(("127.0.0.1", 0))
        urls = [named[0], f"ws://127.0.0.1:{closed.getsockname()[1]}/ws", named[2]]
        async with await Balancer.start(urls) as balancer, aiohttp.ClientSession() as session:
            for number in range(9):
                url = page(balancer.url, f"/ws/000/s{number}/xhr")
                assert (await ask(session, url))[0] in {0, 2}


async def test_other_requests_are_distributed_even_on_one_client_connection(named: list[str]) -> None:
    async with await Balancer.start(named) as balancer, on_one_connection() as session:
        servers = [(await ask(session, page(balancer.url, "/info")))[0] for _ in range(6)]
    assert Counter(servers) == {0: 2, 1: 2, 2: 2}


async def test_a_large_body_passes_the_balancer_unchanged(named: list[str]) -> None:
    body = os.urandom(3 << 20)
    async with await Balancer.start(named) as balancer, aiohttp.ClientSession() as session:
        assert (await ask(session, page(balancer.url, "/upload"), body))[1] == len(body)


async def test_a_request_head_that_is_too_large_is_disconnected_and_others_are_served(named: list[str]) -> None:
    async with await Balancer.start(named) as balancer, aiohttp.ClientSession() as session:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert (await ask(session, page(balancer.url, "/")))[0] in {0, 1, 2}


async def test_closing_the_balancer_drops_its_connections(cluster: Cluster) -> None:
    balancer = await cluster.balance()
    async with Peer(balancer.url) as ana:
        await balancer.aclose()
        assert await ana.close_code() == 1006
    with pytest.raises(OSError):
        await Peer(balancer.url).open()
