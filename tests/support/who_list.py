"""A client's view of `/topic/who.NAME`: the list, and the changes since."""

from __future__ import annotations

import asyncio
import json

from tests.support.stomp_peer import SECONDS, Peer


class WhoList:
    """Who is in a room, as one watcher has been told. Only the frames of its subscription may be MESSAGEs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.people: set[tuple[str, str]] = set()  # names, and handles
        self.version: int | None = None  # None before the list
        self.count = 0

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return sorted(name for name, _ in self.people)

    async def next(self) -> list[str]:
        """Take the next MESSAGE."""
        self.take((await self.peer.frame("MESSAGE")).body)
        return self.names

    def take(self, body: bytes) -> None:
        """Take the body of a MESSAGE; AssertionError if one is missing before it."""
        told = json.loads(body)
        self.count = told["count"]
        if "people" in told:
            self.people = {(each["name"], each["handle"]) for each in told["people"]}
        else:
            assert self.version is not None and told["version"] == self.version + 1, (self.version, told)
            left, joined = [{(each["name"], each["handle"]) for each in told[part]} for part in ("left", "joined")]
            assert left <= self.people and not joined & self.people, told
            self.people = (self.people - left) | joined
        self.version = told["version"]
        assert len(self.people) == self.count

    async def until(self, *names: str) -> None:
        """Wait until these are there, and nobody else."""
        async with asyncio.timeout(SECONDS):
            while self.version is None or self.names != sorted(names):
                await self.next()


async def who_list(peer: Peer, room: str, id: str = "who") -> WhoList:
    """Subscribe to the people of a room."""
    await peer.subscribe(f"/topic/who.{room}", id=id)
    return WhoList(peer)
