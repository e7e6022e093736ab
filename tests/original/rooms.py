"""What happens in the article's room: who gets what, and who is closed for whose fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from chatlab.lab.clients import RoomClient
from tests.original.client import Client

SENDERS, TEXTS = 8, 20
LARGE = "y" * 8000
PATIENCE = 1.5  # seconds without an echo: the loop stands


async def everybody(url: str) -> Any:
    """Every text goes to every session, the sender's too."""
    async with Client(url) as ana, Client(url) as ben:
        await ana.send("안녕")
        return [await ana.until(1), await ben.until(1)]


async def foreign_page(url: str) -> Any:
    """A page of any origin is let in."""
    async with Client(url, origin="https://evil.example") as page:
        await page.send("hi")
        return await page.until(1)


async def many_senders(url: str) -> Any:
    """Several send at once: nearly all are closed with 1011."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(url)) for _ in range(SENDERS)]

        async def talk(client: Client) -> None:
            for number in range(TEXTS):
                await client.send(f"{number}")

        await asyncio.gather(*map(talk, clients))
        await asyncio.gather(*(client.quiet(2.0) for client in clients))
        closed = [client.closed for client in clients if client.closed is not None]
        return {"some with 1011": 1011 in closed, "most are closed": len(closed) >= SENDERS / 2}


async def closing_member(url: str) -> Any:
    """A session that sends Close leaves the registry at once, and harms nobody."""
    async with Client(url) as ana, Client(url) as leaving, Client(url) as ben:
        await leaving.connection.close()
        await ana.send("hello")
        return [await ana.until(1), await ben.until(1), ana.closed]


async def filled(url: str, stack: AsyncExitStack) -> tuple[RoomClient, Client]:
    """Return a member that does not read, and the sender whose loop stands because of it."""
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    await stalled.connect()
    stack.push_async_callback(stalled.vanish)
    stalled.stop_reading()
    sender = await stack.enter_async_context(Client(url))
    for number in range(1, 5000):
        await sender.send(LARGE)
        if len(await sender.until(number, PATIENCE)) < number:
            break
    return stalled, sender


async def second_sender(url: str) -> Any:
    """While one loop stands at a stalled member, the next sender is closed with 1011, and then the first."""
    async with AsyncExitStack() as stack:
        stalled, first = await filled(url, stack)
        second = await stack.enter_async_context(Client(url))
        await second.send("and I?")
        code = await second.until_closed()
        await stalled.vanish()
        return {"second": code, "first, once the stalled one is gone": await first.until_closed()}


async def write_timeout(url: str) -> Any:
    """A stalled member is closed after 20 s, and the innocent sender with it, with 1011."""
    async with AsyncExitStack() as stack:
        _, sender = await filled(url, stack)
        began = time.monotonic()
        code = await sender.until_closed(40)
        return {"sender": code, "in 15 to 25 s": 15 < time.monotonic() - began + PATIENCE < 25}


ROOMS: dict[str, Callable[[str], Awaitable[Any]]] = {
    "room: every text goes to every session": everybody,
    "room: a page of any origin": foreign_page,
    "room: eight senders at once": many_senders,
    "room: a member that closes": closing_member,
    "room: two senders and a stalled member": second_sender,
    "room: a stalled member for 20 s": write_timeout,
}
