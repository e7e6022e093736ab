"""Relay STOMP over TCP to a WebSocket, for test suites of STOMP clients without WebSocket. See docs/suites.md.

python -m tests.interop.tcp_relay 61613 ws://127.0.0.1:8080/ws
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chatlab.proxies import proxy_for


async def relay(url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward octets in both directions until one side closes."""
    async with connect(url, ping_interval=None, max_size=None, compression=None, proxy=proxy_for(url)) as websocket:
        tasks = [
            asyncio.create_task(_to_websocket(reader, websocket)),
            asyncio.create_task(_to_socket(websocket, writer)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    writer.close()


async def _to_websocket(reader: asyncio.StreamReader, websocket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, ConnectionError):
        while octets := await reader.read(1 << 16):
            await websocket.send(octets)


async def _to_socket(websocket: ClientConnection, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionClosed, ConnectionError):
        while True:
            writer.write(await websocket.recv(decode=False))
            await writer.drain()


async def serve(port: int, url: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: relay(url, reader, writer), "127.0.0.1", port)
    print(f"listening on tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
