"""STOMP over TCP, brought to a WebSocket: for suites of STOMP clients that speak nothing else. See docs/suites.md.

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
    """Pass octets on as they come, both ways, until one side ends."""
    async with connect(url, ping_interval=None, max_size=None, compression=None, proxy=proxy_for(url)) as websocket:
        both = [asyncio.create_task(_up(reader, websocket)), asyncio.create_task(_down(websocket, writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.wait(both)
    writer.close()


async def _up(reader: asyncio.StreamReader, websocket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, ConnectionError):
        while octets := await reader.read(1 << 16):
            await websocket.send(octets)


async def _down(websocket: ClientConnection, writer: asyncio.StreamWriter) -> None:
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
