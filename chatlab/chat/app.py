"""Map destinations to handlers: what a client may call under `/app`, and where the result goes.

    app = Application()

    @app.message("/chat.sendMessage")       # SEND to /app/chat.sendMessage, its JSON body decoded into a ChatMessage
    @send_to("/topic/public")               # the handler's result is sent to every subscriber of the topic
    def send_message(message: ChatMessage, call: Call) -> ChatMessage: ...

    @app.subscribe("/chat.who.{room}")      # SUBSCRIBE to /app/chat.who.cats: answered once, then finished
    async def who(call: Call) -> list[str]: ...

A handler takes its message first, if it wants one, and a `Call` that says who asked; it may be async. It returns
nothing, a value for `send_to`, or an `Outgoing` that names the destination itself. It rejects with `MessageRefused`.

Left out: sessions, frames and sockets (connection.py), the broker (service.py), and the chat's own handlers (rooms.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

import msgspec

from chatlab.chat.destinations import JSON, OWN, pack, plain, room_of, shown_destination
from chatlab.chat.directory import Directory, handle_of
from chatlab.errors import MessageRefused, NoHandler
from chatlab.stomp.frames import StompHeaders
from chatlab.untrusted_json import parse

Handler = TypeVar("Handler", bound=Callable[..., Any])

PREFIX = "/app"
NO_PARTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class User:
    """The user of a connection: `name` is shown to people, `handle` is the address that others use.

    `principal` identifies the user to the deployment (an account, perhaps an e-mail address): no other client sees it.
    The handle is derived from it; `Access` derives it again with the deployment's key.
    """

    name: str
    principal: str
    guest: bool = False
    named: bool = True  # a guest without a name may give one in each message
    handle: str = ""

    def __post_init__(self) -> None:
        if not self.handle:
            object.__setattr__(self, "handle", handle_of(self.principal))


NOBODY_KNOWN = Directory()


class Call(msgspec.Struct, frozen=True):
    """One SEND or SUBSCRIBE to a handler: the destination as sent, the user, and the parts named in the pattern.

    `directory` knows the handles of others whom a message names, and the names that a guest may not take.
    """

    destination: str
    user: User
    headers: StompHeaders = ()
    parts: Mapping[str, str] = NO_PARTS
    directory: Directory = NOBODY_KNOWN


class Outgoing(msgspec.Struct, frozen=True):
    """A record on its way to a destination's topic; with `key`, a repeat with the same key is not stored again."""

    destination: str
    body: bytes
    key: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A handler's answer: `outgoing`, or nothing; or `later`, a coroutine to await for it."""

    outgoing: Outgoing | None = None
    later: Coroutine[Any, Any, Outgoing | None] | None = None


def send_to(destination: str) -> Callable[[Handler], Handler]:
    """Send the handler's result, as JSON, to `destination` (Spring's `@SendTo`)."""

    def mark(handler: Handler) -> Handler:
        handler.__dict__["send_to"] = destination
        return handler

    return mark


class Application:
    """The handlers under `/app`, by destination. A pattern's `{name}` matches one part without a dot or slash."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self._beginning = prefix + "/"
        self._messages: list[_Route] = []
        self._subscriptions: list[_Route] = []
        self._own: set[str] = set()
        self._own_prefixes: tuple[str, ...] = ()
        self.own(*OWN)

    def own(self, *destinations: str) -> None:
        """Accept no SEND from clients to these destinations: only the application writes there.

        One that ends in a dot covers every destination with that prefix. The targets of `send_to` are covered already;
        the destinations of an `Outgoing` are not known in advance, and have to be listed here.
        """
        for destination in destinations:
            if destination.endswith("."):
                self._own_prefixes += (plain(destination) + ".",)
            else:
                self._own.add(plain(destination))

    def is_own(self, destination: str) -> bool:
        """Return whether only the application writes to a destination, however it is spelled."""
        text = plain(shown_destination(destination))
        return text in self._own or text.startswith(self._own_prefixes)

    def message(self, destination: str) -> Callable[[Handler], Handler]:
        """Call the handler for every SEND to `/app` + `destination` (Spring's `@MessageMapping`)."""
        return self._add(self._messages, destination)

    def subscribe(self, destination: str, *, about: str | None = None) -> Callable[[Handler], Handler]:
        """Answer a SUBSCRIBE to `/app` + `destination` once, with the handler's result (`@SubscribeMapping`).

        `about`: what the answer reveals, such as "/topic/room.{room}"; `may_subscribe` is asked about that as well.
        """
        return self._add(self._subscriptions, destination, about)

    def takes(self, destination: str) -> bool:
        """Return whether this destination is under the application's prefix, with or without a handler."""
        return destination.startswith(self._beginning)

    def subject_of(self, destination: str) -> str | None:
        """Return what the answer to a SUBSCRIBE reveals; None if its handler does not say."""
        found = _find(self._subscriptions, destination)
        return found[0].about.format_map(found[1]) if found is not None and found[0].about is not None else None

    def handles_subscription(self, destination: str) -> bool:
        """Return whether a handler answers a SUBSCRIBE to this destination."""
        return _find(self._subscriptions, destination) is not None

    def call_message(self, call: Call, body: bytes) -> Answer:
        """Run the handler of a SEND. Raise `MessageRefused` if the body does not fit, or if the handler rejects it.

        Raise `NoHandler` if there is none for the destination. An async handler's answer comes `later`.
        """
        route, parts = _require(self._messages, call.destination)
        result = route.run(msgspec.structs.replace(call, parts=parts) if parts else call, body)
        if isinstance(result, Outgoing):
            return Answer(result)
        if isinstance(result, Awaitable):
            return Answer(later=_await_answer(route, result))
        return Answer(route.outgoing(result))

    async def call_subscription(self, call: Call) -> bytes:
        """Run the handler of a SUBSCRIBE; return its answer as JSON."""
        route, parts = _require(self._subscriptions, call.destination)
        result = route.run(msgspec.structs.replace(call, parts=parts) if parts else call, b"")
        return msgspec.json.encode(await result if isinstance(result, Awaitable) else result)

    def _add(self, routes: list[_Route], destination: str, about: str | None = None) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            route = _Route(self.prefix + destination, handler, about)
            routes.append(route)
            if route.send_to is not None:
                self.own(route.send_to)
            return handler

        return register


class _Route:
    """One handler: the pattern it is registered for, and the type its message is decoded into, if it takes one."""

    def __init__(self, pattern: str, handler: Callable[..., Any], about: str | None = None) -> None:
        self.about = about
        self.name = getattr(handler, "__qualname__", repr(handler))
        self.send_to: str | None = getattr(handler, "send_to", None)
        self.exact = pattern if "{" not in pattern else None
        self._pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^./]+)", re.escape(pattern)))
        self._handler = handler
        self._decoder = _decoder_of(handler)

    def match(self, destination: str) -> Mapping[str, str] | None:
        if self.exact is not None:
            return NO_PARTS if destination == self.exact else None
        found = self._pattern.fullmatch(destination)
        return found.groupdict() if found else None

    def run(self, call: Call, body: bytes) -> Any:
        if self._decoder is None:
            return self._handler(call)
        return self._handler(_decode(self._decoder, body), call)

    def outgoing(self, result: Any) -> Outgoing | None:
        """Return the record to send for a handler's result; None if there is none."""
        if result is None or isinstance(result, Outgoing):
            return result
        if self.send_to is None:
            raise TypeError(f"{self.name} returned a value, but has no send_to to say where it goes")
        body = msgspec.json.encode(result)
        # A room's record is plain JSON; any other names its content-type.
        in_room = room_of(self.send_to) is not None
        return Outgoing(self.send_to, body if in_room else pack(self.send_to, [("content-type", JSON)], body))


async def _await_answer(route: _Route, result: Awaitable[Any]) -> Outgoing | None:
    return route.outgoing(await result)


def _decoder_of(handler: Callable[..., Any]) -> msgspec.json.Decoder[Any] | None:
    hints = get_type_hints(handler)
    first = next(iter(inspect.signature(handler).parameters))
    kind = hints.get(first, Any)
    return None if kind is Call else msgspec.json.Decoder(kind)


# msgspec names the field in one of these two ways.
_FIELD = re.compile(r"field `(?P<missing>[^`]+)`|at `\$\.(?P<wrong>[^`]+)`")


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return parse(decoder.decode, body)
    except ValueError as error:
        found = _FIELD.search(str(error))
        name = (found["missing"] or found["wrong"]) if found else ""
        raise MessageRefused(f"not the JSON expected: {error}", field=name) from error


def _find(routes: list[_Route], destination: str) -> tuple[_Route, Mapping[str, str]] | None:
    for route in routes:
        parts = route.match(destination)
        if parts is not None:
            return route, parts
    return None


def _require(routes: list[_Route], destination: str) -> tuple[_Route, Mapping[str, str]]:
    found = _find(routes, destination)
    if found is None:
        raise NoHandler(f"no handler for {destination!r}")
    return found
