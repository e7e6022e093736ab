"""Who a client is, and what it may do: three functions that a deployment replaces, and the guests' rule if it does not.

    async def authenticate(credentials: Credentials) -> User | None: ...       None refuses the CONNECT
    Access(authenticate=..., may_subscribe=lambda user, destination: ..., may_send=...)

Without `authenticate` everybody is a guest under the name it gives. Its principal, which private queues are
addressed by, is another for each session.

Names and principals are in NFC from here on, and so are the destinations that `may_subscribe` and `may_send` are given
(naming.py): a rule that names a room names it however the client spells it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from chatlab.chat.app import User
from chatlab.naming import one_spelling, shown_name


@dataclass(frozen=True, slots=True)
class Credentials:
    """What CONNECT brought. A browser cannot set headers on the upgrade, so a token comes here as well."""

    login: str | None = None
    passcode: str | None = None
    token: str | None = None  # the header `token`, or `Authorization: Bearer TOKEN`
    remote: str | None = None  # the peer's address


Authenticate = Callable[[Credentials], User | Awaitable[User | None] | None]
Permits = Callable[[User, str], bool]


def everything(user: User, destination: str) -> bool:
    """Permit whatever is asked."""
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """The three decisions. A refusal is answered with an ERROR that names what was refused."""

    authenticate: Authenticate | None = None
    may_subscribe: Permits = everything
    may_send: Permits = everything

    async def user_of(self, credentials: Credentials) -> User | None:
        """Whose credentials these are; None if they are nobody's."""
        if self.authenticate is None:
            return guest(credentials.login)
        found = self.authenticate(credentials)
        user = await found if isinstance(found, Awaitable) else found
        if user is None:
            return None
        return replace(user, name=one_spelling(user.name), principal=one_spelling(user.principal))


def guest(name: str | None) -> User:
    """A guest under the name it wants to be shown; no two guests have the same principal."""
    unique = uuid.uuid4().hex
    shown = shown_name(name or "")
    return User(shown or f"guest-{unique[:4]}", f"guest-{unique}", guest=True, named=bool(shown))
