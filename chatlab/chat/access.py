"""Who a client is, and what it may do: three functions that a deployment replaces, and the guests' rule if it does not.

    async def authenticate(credentials: Credentials) -> User | None: ...       None refuses the CONNECT
    Access(authenticate=..., may_subscribe=lambda user, destination: ..., may_send=...)

`may_send` is asked for what a client sends to, and then for where the message goes: a SEND to `/app/chat.sendMessage`
with `{"room": "staff"}` asks for `/topic/room.staff` too, a private message for `/user/HANDLE/queue/private`.
`may_subscribe` is asked for the destination, and for `/topic/who.staff` also for the room it tells of. History and
`last-id` come with the subscription. So a rule for one room is a rule for its destination:

    STAFF = {"ann", "bob"}

    def staff_only(user: User, destination: str) -> bool:
        return destination != "/topic/room.staff" or user.principal in STAFF

    Access(authenticate, may_subscribe=staff_only, may_send=staff_only)

Names and principals are in NFC from here on, and so are the destinations that both are given (naming.py): a rule that
names a room names it however the client spells it. A refusal ends the connection.

Without `authenticate` everybody is a guest under the name it gives. A guest that brings a `client-key` in CONNECT, a
secret that it has drawn and keeps, is the same one after a reconnect: its principal, its handle and its private queue
stay, and what it sends again is known as a repeat. A guest without one is another each time it connects.

Where guests are let in beside users, none may take a user's name, or one that looks like it (directory.py): `names`
lists the users' names. Such a CONNECT is refused.

Others are told a user's handle, never its principal. All instances of a chat need the same `handle_key`. Without a key
the handle is a plain hash of the principal: who guesses a principal, say an e-mail address, can check the guess.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

from chatlab.chat.app import User
from chatlab.chat.directory import handle_of
from chatlab.errors import StompError
from chatlab.naming import one_spelling, shown_name


@dataclass(frozen=True, slots=True)
class Credentials:
    """What CONNECT brought. A browser cannot set headers on the upgrade, so a token comes here as well."""

    login: str | None = None
    passcode: str | None = None
    token: str | None = None  # the header `token`, or `Authorization: Bearer TOKEN`
    remote: str | None = None  # the peer's address
    client_key: str | None = None  # a guest's secret, by which it is known again


Authenticate = Callable[[Credentials], User | Awaitable[User | None] | None]
Permits = Callable[[User, str], bool]


def everything(user: User, destination: str) -> bool:
    """Permit whatever is asked."""
    return True


# A client-key shorter than this can be guessed.
MIN_KEY, MAX_KEY = 16, 128


@dataclass(frozen=True, slots=True)
class Access:
    """The three decisions. A refusal is answered with an ERROR that names what was refused."""

    authenticate: Authenticate | None = None
    may_subscribe: Permits = everything
    may_send: Permits = everything
    handle_key: bytes = b""  # at most 64 bytes
    names: Collection[str] = ()  # of registered users, which no guest may take

    async def user_of(self, credentials: Credentials) -> User | None:
        """Whose credentials these are; None if they are nobody's. StompError says what is wrong with them."""
        if self.authenticate is None:
            return guest(credentials.login, credentials.client_key, self.handle_key)
        found = self.authenticate(credentials)
        user = await found if isinstance(found, Awaitable) else found
        if user is None:
            return None
        principal = one_spelling(user.principal)
        handle = handle_of(principal, self.handle_key)
        return replace(user, name=shown_name(user.name) or f"user-{handle[:4]}", principal=principal, handle=handle)


def guest(name: str | None, client_key: str | None = None, handle_key: bytes = b"") -> User:
    """A guest under the name it wants to be shown; no two have the same principal unless they share a `client_key`.

    StompError if that is too short to be a secret, or too long.
    """
    principal = f"guest-{_secret_of(client_key) if client_key is not None else uuid.uuid4().hex}"
    handle = handle_of(principal, handle_key)
    shown = shown_name(name or "")
    return User(shown or f"guest-{handle[:4]}", principal, guest=True, named=bool(shown), handle=handle)


def _secret_of(client_key: str) -> str:
    if not MIN_KEY <= len(client_key) <= MAX_KEY:
        raise StompError(
            f"client-key has {len(client_key)} characters: draw {MIN_KEY} to {MAX_KEY} at random, or leave it out"
        )
    return hashlib.blake2b(client_key.encode(), digest_size=16, person=b"chat guest").hexdigest()
