"""Presence on Redis: notes in keys that expire, so that a dead instance disappears without notice.

    presence:{PLACE}          a set of the owners of notes
    presence:{PLACE}:WHO      the note, with a time to live

Reading the set removes owners whose note has expired; the set expires with its last note.
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

# The hash tag in braces puts the notes' keys into the slot of the set, so a cluster can run this too.
PRESENT = """
local notes = {}
for _, who in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local note = redis.pcall('GET', KEYS[1] .. ':' .. who)
  if type(note) == 'string' then notes[#notes + 1] = note else redis.call('SREM', KEYS[1], who) end
end
return notes
"""

# A note whose first line the reader knows is returned as that line alone: unchanged notes cost next to nothing.
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
    """What presence needs from a broker on Redis."""

    async def _ask(self, *command: Any) -> Any:
        """Send a command that may be repeated; wait for a server that is away."""


class RedisPresence:
    """The calls of `HasPresence`, for a broker with `_ask`."""

    async def announce(self: Asks, place: str, who: str, note: str, seconds: float) -> None:
        """Set `who`'s note at `place`; it expires after `seconds`."""
        key = f"presence:{{{place}}}"
        await self._ask(b"EVAL", ANNOUNCE, 2, key, f"{key}:{who}", int(seconds * 1000), note, who)

    async def renew(self: Asks, place: str, who: str, seconds: float) -> bool:
        """Extend a note to `seconds` from now; return False if it has expired."""
        key = f"presence:{{{place}}}"
        return bool(await self._ask(b"EVAL", RENEW, 2, key, f"{key}:{who}", int(seconds * 1000), who))

    async def present(self: Asks, place: str) -> Sequence[str]:
        """Return the notes that have not expired."""
        notes = await self._ask(b"EVAL", PRESENT, 1, f"presence:{{{place}}}")
        return [str(note, "utf-8", "replace") for note in notes]

    async def look(self: Asks, place: str, known: Collection[str]) -> Sequence[str]:
        """Like `present`, but return only the first line of a note if it is in `known`."""
        notes = await self._ask(b"EVAL", LOOK, 1, f"presence:{{{place}}}", *known)
        return [str(note, "utf-8", "replace") for note in notes]
