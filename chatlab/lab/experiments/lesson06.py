"""Lesson 06's experiments: mistakes and the server's answers to them, and clients from other projects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
import stomp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chatlab import chat
from chatlab.brokers.memory import MemoryBroker
from chatlab.chat.endpoint.server import ChatServer
from chatlab.clients.stomp import StompClient
from chatlab.lab.runtime import lab
from chatlab.locale import _
from chatlab.stomp.frames import Frame, Parser

__all__ = [
    "CONNECT",
    "MISTAKES",
    "all_seen",
    "error_for",
    "guest",
    "over_plain_http",
    "seen",
    "start_chat",
    "with_stomp_py",
]

seen: dict[str, bool] = {}
"""What the cells of this kernel have seen to work, by name; the verdicts at the end read it."""


def all_seen(*names: str) -> bool | None:
    """Return whether all of these were seen to work; None if the cells of one have not been run."""
    return all(seen[name] for name in names) if set(names) <= set(seen) else None


async def start_chat() -> ChatServer:
    """Start the lesson's chat, on a broker in memory, in place of the one that runs."""
    broker = MemoryBroker(run=1)
    await lab.start("broker", broker.__aenter__())
    return await lab.start("chat", chat.start(broker, heart_beat=(200, 200)))


async def guest(server: ChatServer, name: str | None = None, *, reconnect: bool = True) -> StompClient:
    """Connect a client of ours, as `name`."""
    return await StompClient(server.url, login=name, reconnect=reconnect).__aenter__()


CONNECT = "CONNECT\naccept-version:1.2\nhost:chat.example\n\n\0"

MISTAKES: dict[str, list[str]] = {
    _("sends before CONNECT"): ["SEND\ndestination:/topic/a\n\nx\0"],
    _("a version that does not exist"): ["CONNECT\naccept-version:9.9\nhost:x\n\n\0"],
    _("no destination"): [CONNECT, "SEND\n\nx\0"],
    _("no such command"): [CONNECT, "SHOUT\n\n\0"],
    _("no such escape"): [CONNECT, "SEND\ndestination:/topic/a\\t\n\nx\0"],
    _("another user's queue"): [CONNECT, "SUBSCRIBE\nid:1\ndestination:/user/nuri/queue/private\n\n\0"],
}


async def error_for(url: str, frames: Sequence[str]) -> str:
    """Send these frames as they are; return the message of the ERROR that comes back."""
    async with connect(url, subprotocols=["v12.stomp"], compression=None, proxy=None) as socket:  # type: ignore[list-item]  # websockets wants its NewType of str
        for frame in frames:
            await socket.send(frame)
        parser = Parser()
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    [answer] = parser.feed(await socket.recv(decode=False))
                    if isinstance(answer, Frame) and answer.command == "ERROR":
                        return answer.get("message") or ""
                    parser.version = "1.2"  # CONNECTED has agreed on it: from now on, headers are escaped
        return _("no ERROR came")


async def over_plain_http(url: str, frames: Sequence[str], *, answers: int = 2) -> list[str]:
    """Send STOMP frames to a SockJS endpoint in ordinary requests; return the first `answers` frames that come back.

    This is SockJS's xhr-polling transport: a session is a path, a request to `/xhr` waits for the server's next message
    ("o": opened, "h": a heart-beat, 'a[…]': an array of messages), and `/xhr_send` takes an array of the client's.
    """
    parts = urlsplit(url)
    session = f"http://{parts.netloc}{parts.path}/000/{uuid.uuid4().hex}"
    received: list[str] = []
    async with aiohttp.ClientSession() as http:

        async def poll() -> str:
            async with http.post(f"{session}/xhr") as answer:
                return await answer.text()

        if (opened := await poll()) != "o\n":
            raise ConnectionError(_("no SockJS session: {answer!r}").format(answer=opened[:80]))
        async with http.post(f"{session}/xhr_send", data=json.dumps(list(frames))) as answer:
            answer.raise_for_status()
        while len(received) < answers:
            if (answered := await poll()).startswith("a"):
                received += json.loads(answered[1:])
    return received


async def with_stomp_py(url: str, destination: str, text: str) -> str:
    """Let the client `stomp-py` connect, subscribe and send; return the body of the message it receives."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()
    parts = urlsplit(url)

    class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp-py is not typed
        def on_message(self, frame: stomp.utils.Frame) -> None:
            loop.call_soon_threadsafe(_settle, received, frame.body)

    client = stomp.WSStompConnection([(parts.hostname, parts.port)], ws_path=parts.path, vhost="chat.example")
    client.set_listener("", Listener())
    await asyncio.to_thread(client.connect, wait=True)
    try:
        await asyncio.to_thread(client.subscribe, destination, id="1")
        await asyncio.to_thread(client.send, destination, text)
        async with asyncio.timeout(10):
            return await received
    finally:
        await asyncio.to_thread(client.disconnect)


def _settle(future: asyncio.Future[str], text: str) -> None:
    if not future.done():
        future.set_result(text)
