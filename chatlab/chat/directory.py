"""How users are told apart: the handles that others address them by, and the names that a guest may not take.

    handle_of("kim@example.org", key)       "0c41…"   32 hexadecimal digits, the same on all instances with that key
    directory.addressed("0c41…")            "0c41…"   the addressee that a client names by handle or principal
    directory.fault_in("ѕеrvеr")            why a guest may not use that name, "" if it may

A guest may take any name that cannot be mistaken for another: not the server's reserved words, not a registered user's
(those that the deployment lists, and the latest 10,000 that connected here), and no word that mixes letters of several
scripts. The refusal is the answer to CONNECT; the guest chooses another name. Two guests may share a name: nobody owns
it. Their handles differ, and each message has its sender's.

Left out: users that have only connected to another instance. A deployment that admits guests next to its users lists
its users' names (`Access.names`). Private messages do not depend on these names: they go by handle, which is the same
on all instances.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from chatlab.naming import mixed_scripts, one_spelling, skeletons

# Names that a reader would take for the server or its operator.
RESERVED = ("server", "system", "chatlab", "notice", "admin", "administrator", "moderator")
RESERVED_IN_KOREAN = ("서버", "시스템", "공지", "관리자", "운영자")
GIVEN = ("guest-", "user-")  # prefixes of the names that the server assigns; four hexadecimal digits follow
MAX_LEARNED = 10_000
MAX_JUDGED = 1_000
HANDLE = re.compile("[0-9a-f]{32}")


def handle_of(principal: str, key: bytes = b"") -> str:
    """Return the handle that others address a user by: 32 hexadecimal digits that do not reveal the principal.

    Without a `key`, anyone who guesses a principal can check the guess. The key has at most 64 bytes.
    """
    return hashlib.blake2b(principal.encode(), digest_size=16, key=key, person=b"chat handle").hexdigest()


class Directory:
    """The handles under one key, and the names that are taken."""

    def __init__(self, key: bytes = b"", names: Iterable[str] = ()) -> None:
        self._key = key
        self._owned = {each for name in (*RESERVED, *RESERVED_IN_KOREAN, *names) for each in skeletons(name)}
        self._given = tuple(each for name in GIVEN for each in skeletons(name))
        self._digits = {char for each in skeletons("0123456789abcdef") for char in each}
        self._learned: dict[str, None] = {}  # names of users that have connected, the latest last
        self._likenesses: dict[str, str] = {}  # by skeleton: a name of those
        self._judged: dict[str, str] = {}  # by name: its fault. A guest without a name may use a new one per message

    def addressed(self, who: str) -> str:
        """Return the handle of the user that a client names by handle or principal."""
        return who if HANDLE.fullmatch(who) else handle_of(one_spelling(who), self._key)

    def learn(self, name: str) -> None:
        """Record the name of an authenticated user: no guest may take it, or one that looks like it."""
        if name in self._learned:
            del self._learned[name]
        else:
            self._likenesses |= dict.fromkeys(skeletons(name), name)
            self._judged.clear()
        self._learned[name] = None
        if len(self._learned) > MAX_LEARNED:
            self._forget(next(iter(self._learned)))

    def fault_in(self, name: str) -> str:
        """Return why a guest may not use a name; "" if it may."""
        fault = self._judged.get(name)
        if fault is None:
            if len(self._judged) >= MAX_JUDGED:
                self._judged.clear()
            fault = self._judged[name] = self._find_fault_in(name)
        return fault

    def _find_fault_in(self, name: str) -> str:
        if scripts := mixed_scripts(name):
            return f"the name {name!r} mixes letters of {' and '.join(scripts)} in one word: choose another name"
        likenesses = skeletons(name)
        if any(map(self._looks_given, likenesses)):
            return f"the name {name!r} looks like one that the server assigns: choose another name"
        if any(each in self._owned or each in self._likenesses for each in likenesses):
            return f"the name {name!r} is taken or reserved, or looks like one that is: choose another name"
        return ""

    def _looks_given(self, likeness: str) -> bool:
        """Return whether a name looks like guest-12ab. (guest-1 does not: people use such names.)"""
        begins = (given for given in self._given if likeness.startswith(given))
        return any(len(rest := likeness.removeprefix(given)) == 4 and self._digits.issuperset(rest) for given in begins)

    def _forget(self, name: str) -> None:
        del self._learned[name]
        self._judged.clear()
        for each in skeletons(name):
            if self._likenesses.get(each) == name:
                del self._likenesses[each]
