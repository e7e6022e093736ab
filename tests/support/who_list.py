"""A client's view of `/topic/who.NAME`: the list, and the changes since."""

from __future__ import annotations

import asyncio
import json

from tests.support.stomp_peer import SECONDS, Peer


class WhoList:
    """Who is in a room, as one watcher has been told. Only the frames of its subscription may be MESSAGEs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.people: dict[str, str] = {}  # by handle: the name
        self.version: int | None = None  # None before the list
        self.count = 0

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return sorted(self.people.values())

    async def next(self) -> list[str]:
        """Take the next MESSAGE."""
        self.take((await self.peer.frame("MESSAGE")).body)
        return self.names

    def take(self, body: bytes) -> None:
        """Take the body of a MESSAGE; AssertionError if one is missing before it."""
        told = json.loads(body)
        self.count = told["count"]
        if "people" in told:
            self.people = {each["handle"]: each["name"] for each in told["people"]}
        else:
            assert self.version is not None and told["version"] == self.version + 1, (self.version, told)
            for each in told["left"]:
                del self.people[each["handle"]]
            for each in told["joined"]:
                assert each["handle"] not in self.people
                self.people[each["handle"]] = each["name"]
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
