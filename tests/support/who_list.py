"""A client's view of `/topic/who.NAME`: the list, and the changes since then."""

from __future__ import annotations

import asyncio
import json

from tests.support.stomp_peer import SECONDS, Peer


class WhoList:
    """The people in a room as one watcher knows them; it must receive no MESSAGE of another subscription."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.people: set[tuple[str, str]] = set()  # names, and handles
        self.version: int | None = None  # None before the list
        self.count = 0

    @property
    def names(self) -> list[str]:
        """Return the names in the room, sorted."""
        return sorted(name for name, _ in self.people)

    async def next(self) -> list[str]:
        """Apply the next MESSAGE; return the names."""
        self.take((await self.peer.frame("MESSAGE")).body)
        return self.names

    def take(self, body: bytes) -> None:
        """Apply the body of a MESSAGE; raise AssertionError if one before it is missing."""
        received = json.loads(body)
        self.count = received["count"]
        if "people" in received:
            self.people = {(each["name"], each["handle"]) for each in received["people"]}
        else:
            assert self.version is not None and received["version"] == self.version + 1, (self.version, received)
            left, joined = [{(each["name"], each["handle"]) for each in received[part]} for part in ("left", "joined")]
            assert left <= self.people and not joined & self.people, received
            self.people = (self.people - left) | joined
        self.version = received["version"]
        assert len(self.people) == self.count

    async def until(self, *names: str) -> None:
        """Wait until exactly these people are in the room."""
        async with asyncio.timeout(SECONDS):
            while self.version is None or self.names != sorted(names):
                await self.next()


async def who_list(peer: Peer, room: str, id: str = "who") -> WhoList:
    """Subscribe to the people of a room."""
    await peer.subscribe(f"/topic/who.{room}", id=id)
    return WhoList(peer)
