"""A member's outbox: what was typed while nothing could be sent, and is sent as soon as something can.

    outbox = await lab.start("outbox", Outbox(member).start())
    outbox.put("점심 먹을까요?")     # returns at once
    outbox.waiting                  # the lines without a RECEIPT, oldest first

Lines are sent one at a time, so they keep their order. Each is sent under one id until its RECEIPT comes: whatever
happened to the earlier tries, the chat stores it once.

Left out: keeping the lines on disk. They end with this process.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Self

from chatlab.errors import MessageRefused, RemoteProtocolError
from chatlab.lab.clients import RECEIPT_SECONDS, StompMember
from chatlab.locale import _
from chatlab.tasks import Tasks

__all__ = ["Outbox"]

logger = logging.getLogger("chatlab.lab.outbox")

SECONDS_BETWEEN_TRIES = 0.05  # the client itself waits while it reconnects


class Outbox:
    """The lines that wait to be sent as one member: those whose RECEIPT has not come, oldest first."""

    def __init__(self, member: StompMember) -> None:
        self.member = member
        self.waiting: list[str] = []
        self._added = asyncio.Event()
        self._tasks = Tasks(logger)

    async def start(self) -> Self:
        """Start sending."""
        self._tasks.start(self._send_all(), name=f"outbox-{self.member.name}")
        return self

    def put(self, text: str) -> None:
        """Add a line, to be sent after those that wait already."""
        self.waiting.append(text)
        self._added.set()

    async def aclose(self) -> None:
        """Stop sending; lines that still wait are not sent."""
        await self._tasks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _send_all(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            while self.waiting:
                text = self.waiting[0]
                try:
                    await self._send_until_stored(text)
                except RemoteProtocolError as error:
                    self._drop(_("not sent: {text} ({error})").format(text=text, error=error))
                else:
                    self._drop(text, stored=True)

    def _drop(self, line: str, *, stored: bool = False) -> None:
        """Remove the oldest line, and log what became of it."""
        del self.waiting[0]
        self.member.note(line, "sent" if stored else "note")

    async def _send_until_stored(self, text: str) -> None:
        """Send one line until its RECEIPT comes. Raises `RemoteProtocolError` if the chat refuses it for good."""
        client_id = uuid.uuid4().hex
        while True:
            try:
                async with asyncio.timeout(RECEIPT_SECONDS):
                    return await self.member.try_to_send(text, client_id)
            except (ConnectionError, TimeoutError):  # it may be stored or not: only a repeat tells
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
            except MessageRefused as refusal:
                if refusal.field:  # a part of the message is at fault, and would be the next time
                    raise
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
