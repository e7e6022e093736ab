"""Who a client is and what it may do: three functions that a deployment replaces, and the default: guests.

    async def authenticate(credentials: Credentials) -> User | None: ...       None refuses the CONNECT
    Access(authenticate=..., may_subscribe=lambda user, destination: ..., may_send=...)

`may_send` is asked about the destination a client sends to, and then about the one the message goes to: a SEND to
`/app/chat.sendMessage` with `{"room": "staff"}` also asks about `/topic/room.staff`, and a private message about
`/user/HANDLE/queue/private`. `may_subscribe` is asked about the destination, and for `/topic/who.staff` also about the
room. History and `last-id` are part of the subscription. So a rule for a room is a rule for its destination:

    STAFF = {"ann", "bob"}

    def staff_only(user: User, destination: str) -> bool:
        return destination != "/topic/room.staff" or user.principal in STAFF

    Access(authenticate, may_subscribe=staff_only, may_send=staff_only)

Names and principals are in NFC from here on, and so are the destinations passed to both functions (naming.py): a rule
that names a room applies however the client spells it. A refusal ends the connection.

Without `authenticate`, everybody is a guest with the name it gives. A guest that sends a `client-key` in CONNECT, a
random secret that it keeps, is recognized after a reconnect: its principal, its handle and its private queue stay the
same, and messages it sends again are known as repeats. A guest without one is a new guest each time it connects.

Where guests are admitted next to users, no guest may take a user's name, or one that looks like it (directory.py):
`names` lists the users' names. Such a CONNECT is refused.

Others see a user's handle, never its principal. All instances of a chat need the same `handle_key`. Without a key, the
handle is a plain hash of the principal: anyone who guesses a principal, such as an e-mail address, can check it.
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
    """What CONNECT contained. A browser cannot set headers on the upgrade, so a token comes here as well."""

    login: str | None = None
    passcode: str | None = None
    token: str | None = None  # the header `token`, or `Authorization: Bearer TOKEN`
    remote: str | None = None  # the peer's address
    client_key: str | None = None  # a guest's secret, by which it is recognized


Authenticate = Callable[[Credentials], User | Awaitable[User | None] | None]
Permits = Callable[[User, str], bool]


def everything(user: User, destination: str) -> bool:
    """Permit everything."""
    return True


# A client-key shorter than this can be guessed.
MIN_KEY, MAX_KEY = 16, 128


@dataclass(frozen=True, slots=True)
class Access:
    """The three decisions. A refusal is answered with an ERROR that names the destination refused."""

    authenticate: Authenticate | None = None
    may_subscribe: Permits = everything
    may_send: Permits = everything
    handle_key: bytes = b""  # at most 64 bytes
    names: Collection[str] = ()  # of registered users; no guest may take one

    async def user_of(self, credentials: Credentials) -> User | None:
        """Return the user with these credentials; None if there is none. Raise StompError if they are malformed."""
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
    """Return a guest with the name it asks for; two guests have the same principal only if they share a `client_key`.

    Raise StompError if the key is too short to be a secret, or too long.
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
