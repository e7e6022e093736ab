"""Presence on Redis: notes in keys that expire, so that nobody has to be told that an instance died.

    presence:{PLACE}          a set: who has announced anything here
    presence:{PLACE}:WHO      the note, with a time to live

The set is cleaned whenever it is read, and expires with its last note.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

ANNOUNCE = """
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[1])
redis.call('SADD', KEYS[1], ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""

# The notes' keys are in the slot of the set, by their braces, so a cluster can run this too.
PRESENT = """
local notes = {}
for _, who in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local note = redis.pcall('GET', KEYS[1] .. ':' .. who)
  if type(note) == 'string' then notes[#notes + 1] = note else redis.call('SREM', KEYS[1], who) end
end
return notes
"""

# Of a note whose first line the reader knows, that line alone: what has not changed costs next to nothing.
LOOK = """
local known = {}
for _, line in ipairs(ARGV) do known[line] = true end
local notes = {}
for _, who in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local note = redis.pcall('GET', KEYS[1] .. ':' .. who)
  if type(note) == 'string' then
    local first = string.match(note, '^[^\\n]*')
    notes[#notes + 1] = known[first] and first or note
  else
    redis.call('SREM', KEYS[1], who)
  end
end
return notes
"""

RENEW = """
if redis.call('PEXPIRE', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('SADD', KEYS[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""


class Asks(Protocol):
    """What presence needs of a broker on Redis."""

    async def _ask(self, *command: Any) -> Any:
        """Ask what may be asked twice, and wait for a server that is away."""


class RedisPresence:
    """The calls of `HasPresence`, for a broker that can ask."""

    async def announce(self: Asks, place: str, who: str, note: str, seconds: float) -> None:
        """Have a note stand for so many seconds."""
        key = f"presence:{{{place}}}"
        await self._ask(b"EVAL", ANNOUNCE, 2, key, f"{key}:{who}", int(seconds * 1000), note, who)

    async def renew(self: Asks, place: str, who: str, seconds: float) -> bool:
        """Have a note stand for longer; False if it has expired."""
        key = f"presence:{{{place}}}"
        return bool(await self._ask(b"EVAL", RENEW, 2, key, f"{key}:{who}", int(seconds * 1000), who))

    async def present(self: Asks, place: str) -> Sequence[str]:
        """The notes that stand."""
        notes = await self._ask(b"EVAL", PRESENT, 1, f"presence:{{{place}}}")
        return [str(note, "utf-8", "replace") for note in notes]

    async def look(self: Asks, place: str, known: Collection[str]) -> Sequence[str]:
        """As `present`, but of a note whose first line is known that line alone."""
        notes = await self._ask(b"EVAL", LOOK, 1, f"presence:{{{place}}}", *known)
        return [str(note, "utf-8", "replace") for note in notes]
