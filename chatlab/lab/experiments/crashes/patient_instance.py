"""An instance of the chat for the stepper: the same chat, but it waits an hour for an answer of Redis, not 3 seconds.

The stepper holds a message between the instance and Redis while somebody looks at it. An ordinary instance would soon
take that Redis for dead, connect again, and send the message a second time. A Redis whose connection breaks is noticed
at once, as ever.

Run by `Instance`, as a process: it prints its URL, and ends when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys

from chatlab.brokers.redis import streams
from chatlab.chat.endpoint import server as chat
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.cluster import READY

SECONDS = 3600.0


async def start(broker_url: str, host: str = "127.0.0.1", port: int = 0) -> ChatServer:
    """Start the instance in this process; it owns its broker."""
    streams.TIMEOUT = SECONDS
    return await chat.start(streams.RedisStreamsBroker(broker_url, patience=SECONDS), host=host, port=port)


async def main() -> None:
    """Run until standard input ends, or SIGTERM comes."""
    options = argparse.ArgumentParser()
    options.add_argument("--broker", required=True)
    options.add_argument("--host", required=True)
    options.add_argument("--port", required=True, type=int)
    options.add_argument("--until-stdin-ends", action="store_true")
    given = options.parse_args()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(sys.stdin, ended.set)  # nothing is ever written there: readable means that it has ended
    async with await start(given.broker, given.host, given.port) as server:
        print(f"{READY}{server.url}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
