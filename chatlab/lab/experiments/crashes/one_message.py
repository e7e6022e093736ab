"""One message, stopped on its way; something is killed there; then: who has the message, and who knows?

    steps = await step(engine, "XADD", kill="instance")         # the whole story in one call
    stepper = await lab.start("stepper", Stepper(engine).start())   # or one step at a time
    await stepper.send("reply"); await stepper.kill("Redis"); await stepper.send_again()

    sender ── wire ── instance 1 ── wire ── Redis ── instance 2 ── receiver
              │ RECEIPT          XADD │ │ reply

The message stops in a wire: at "XADD", the command has left the instance and has not reached Redis; at "reply", Redis
has stored the record and its answer has not reached the instance; at "RECEIPT", the instance's answer has not reached
the sender. Only the connection that carries the message is held. Instances and Redis are real processes, killed with
SIGKILL and started again at once.

What is held when one end of its connection is killed is lost with the connection, as when the machine dies or the line
breaks. If only a process dies, the operating system still delivers what it had taken over: at "XADD", Redis could then
get the record of a dead instance. Left out: `appendfsync no` and a power cut (`power_cut.py`); Redis loses nothing here
that it has written to its file.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from html import escape
from typing import Any, Final, Literal, Self

from redis.asyncio import Redis

from chatlab.chat.destinations import topic_of
from chatlab.errors import RemoteProtocolError
from chatlab.lab.clients import StompMember
from chatlab.lab.engines.cluster import Cluster, Instance
from chatlab.lab.engines.engine import Engine
from chatlab.lab.ledger import said
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _, ngettext

__all__ = ["STOPS", "Fate", "Stepper", "Steps", "step"]

Stop = Literal["XADD", "reply", "RECEIPT"]
Victim = Literal["instance", "Redis"]
Id = Literal["same", "new"]
STOPS: Final[tuple[Stop, ...]] = ("XADD", "reply", "RECEIPT")

SECONDS_TO_STOP = 10.0
SECONDS_TO_SETTLE = 10.0
SECONDS_OF_SILENCE = 0.3  # to listen for what should not come
# The sender's heart-beats show the server that it is there while the RECEIPT is held, and it expects none itself.
HEART_BEAT = (5000, 0)


@dataclass(frozen=True, slots=True)
class Fate:
    """Who has the message: does the sender know that it is stored, how often is it in Redis, how often was it shown?"""

    known: bool
    stored: int
    shown: int

    @property
    def words(self) -> tuple[str, str, str]:
        """The same in words: the sender, Redis, the receiver."""
        sender = _("knows that it is stored") if self.known else _("does not know")
        return sender, _times(self.stored, _("has it not")), _times(self.shown, _("has not seen it"))


def _times(count: int, none: str) -> str:
    if count == 2:
        return _("twice")
    return ngettext("once", "{count} times", count).format(count=count) if count else none


@dataclass(frozen=True)
class Steps:
    """What happened to one message: each step in words, and the message's fate after it."""

    steps: Sequence[tuple[str, Fate]]

    @property
    def last(self) -> Fate:
        """The fate after the last step."""
        return self.steps[-1][1]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return a row for each step, with the header first: the step, the sender, Redis, the receiver."""
        head = (_("step"), _("the sender"), _("Redis"), _("the receiver"))
        return [head, *((name, *fate.words) for name, fate in self.steps)]

    def __repr__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        left = "style='text-align:left;padding-right:1em'"
        head, *rows = [[escape(cell) for cell in row] for row in self.rows()]
        titles = "".join(f"<th scope='col' {left}>{cell}</th>" for cell in head)
        body = "".join(
            f"<tr><th scope='row' {left}>{row[0]}</th>{''.join(f'<td {left}>{cell}</td>' for cell in row[1:])}</tr>"
            for row in rows
        )
        return f"<table><tr>{titles}</tr>{body}</table>"


async def step(engine: Engine, stop: Stop, kill: Victim | None = None, *, again: Id | None = "same") -> Steps:
    """Send a message, stop it at `stop`, kill something there or let it go, send it again; return what each had when.

    `engine` is the Redis, which may be killed. `again`: whether the sender sends it again, if it does not know, under
    the same `client_id` or under a new one.
    """
    async with await Stepper(engine).start() as stepper:
        await stepper.send(stop)
        await (stepper.kill(kill) if kill else stepper.let_go())
        if again and not stepper.steps.last.known:
            await stepper.send_again(again)
        return stepper.steps


class Stepper:
    """Two members on two instances, with a wire on each side of the sender's instance, in which a message can stop."""

    def __init__(self, engine: Engine) -> None:
        self.steps = Steps([])
        self.held: Stop | None = None  # where the message is now, if it is held
        self._engine = engine
        self._room = f"step-{uuid.uuid4().hex[:8]}"
        self._text = ""
        self._client_id = ""
        self._sending: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def start(self) -> Self:
        """Start the instances and connect the members."""
        try:
            await self._start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _start(self) -> None:
        enter = self._stack.enter_async_context
        self._inner = await enter(Wire(self._engine.url, names=("instance", "Redis")))
        module = "chatlab.lab.experiments.crashes.patient_instance"
        self._instance = Instance(0, [sys.executable, "-P", "-m", module, "--broker", self._inner.url])
        self._stack.callback(self._instance.release)
        self._stack.callback(self._instance.kill)
        await self._instance.start()  # one after the other: a busy machine may take long for one, and there is a limit
        other = await enter(Cluster(self._engine.url, instances=1))
        self._outer = await enter(Wire(self._instance.url, names=("sender", "instance")))
        self._sender = await self._connect(self._outer.url, "가람", HEART_BEAT)
        self._receiver = await self._connect(other.urls[0], "Nuri")
        await self._sender.send("hello")  # from now on the receiver has an id to come back with
        await self._receiver.heard("hello")

    async def _connect(self, url: str, name: str, heart_beat: tuple[int, int] = (10_000, 10_000)) -> StompMember:
        member = StompMember(url, name, room=self._room, heart_beat=heart_beat)
        self._stack.push_async_callback(member.close)
        await member.connect()
        return member

    async def aclose(self) -> None:
        """Stop the members, the wires and the instances; Redis goes on."""
        if self._sending is not None:
            self._sending.cancel()
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def names(self) -> tuple[str, str]:
        """The names of the sender and the receiver."""
        return self._sender.name, self._receiver.name

    # --- The steps ---

    async def send(self, stop: Stop, text: str = "") -> Fate:
        """Let the sender send a new message, and return when it is held at `stop`; let an earlier one go first."""
        await self._release()
        self._client_id = uuid.uuid4().hex
        self._text = text or f"message {self._client_id[:6]}"
        stopped = asyncio.Event()
        self._arm(stop, stopped)
        self._sending = asyncio.create_task(self._try_to_send())
        async with asyncio.timeout(SECONDS_TO_STOP):
            await stopped.wait()
        self.held, self.steps = stop, Steps([])
        name = {"XADD": _("held at XADD"), "reply": _("held at the reply"), "RECEIPT": _("held at the RECEIPT")}
        return await self._note(name[stop])

    async def let_go(self) -> Fate:
        """Let the message go on. Raises `ValueError` if it is not held."""
        self._require_message()
        if self.held is None:
            raise ValueError(_("nothing is held, so there is nothing to let go; send a message first"))
        await self._release()
        return await self._note(_("let go"))

    async def kill(self, victim: Victim) -> Fate:
        """Kill the sender's instance or Redis with SIGKILL, start it again, and let go of what is not lost with it."""
        self._require_message()
        is_instance = victim == "instance"
        await asyncio.to_thread(self._instance.kill if is_instance else self._engine.kill)
        ends_there = ("XADD", "reply", "RECEIPT") if is_instance else ("XADD", "reply")
        if self.held in ends_there:
            (self._outer if self.held == "RECEIPT" else self._inner).reset()
        await (self._instance.start() if is_instance else self._engine.restart())
        await self._release()
        return await self._note(_("instance killed, and back") if is_instance else _("Redis killed, and back"))

    async def send_again(self, id: Id = "same") -> Fate:
        """Let the sender send the message again until it is confirmed, under the same `client_id` or a new one."""
        self._require_message()
        await self._release()
        if id == "new":
            self._client_id = uuid.uuid4().hex
        async with asyncio.timeout(SECONDS_TO_SETTLE):
            while not self._known:
                await self._try_to_send()
        name = _("sent again, same id") if id == "same" else _("sent again, new id")
        return await self._note(name)

    def _require_message(self) -> None:
        if not self._text:
            raise ValueError(_("there is no message yet; send one first"))

    async def fate(self) -> Fate:
        """Return who has the message now, once what is under way has arrived."""
        if self.held is None and self._sending is not None:
            await asyncio.wait([self._sending], timeout=SECONDS_TO_SETTLE)
        stored = await self._stored()
        with suppress(TimeoutError):
            await until(lambda: self._shown >= stored, timeout=SECONDS_TO_SETTLE if stored else 0)
        await asyncio.sleep(SECONDS_OF_SILENCE)
        return Fate(self._known, await self._stored(), self._shown)

    # --- Holding ---

    def _arm(self, stop: Stop, stopped: asyncio.Event) -> None:
        """Plan to hold the message at `stop`."""
        added: list[Event] = []  # the command that adds the record, once it has passed
        client_id = self._client_id.encode()

        def is_added(event: Event) -> bool:
            if client_id in event.data:
                added.append(event)
            return client_id in event.data

        def is_reply(event: Event) -> bool:  # Redis answers a connection's commands in order, this one with an id
            return bool(added) and event.connection == added[0].connection and isinstance(event.value, bytes)

        if stop == "RECEIPT":
            self._hold_at(lambda event: event.kind == "RECEIPT", self._outer, "server", stopped)
        elif stop == "XADD":
            self._hold_at(is_added, self._inner, "client", stopped)
        else:
            self._inner.when(lambda: None, sender="client", where=is_added)
            self._hold_at(is_reply, self._inner, "server", stopped)

    def _hold_at(
        self, is_it: Callable[[Event], bool], wire: Wire, sender: Literal["client", "server"], stopped: asyncio.Event
    ) -> None:
        """Plan to hold the connection of the next event that `is_it`, just before the event."""
        found: list[Event] = []

        def where(event: Event) -> bool:
            if is_it(event):
                found.append(event)
            return is_it(event)

        def hold() -> None:
            wire.hold(found[-1].connection, sender=sender)
            stopped.set()

        wire.when(hold, sender=sender, where=where)

    async def _release(self) -> None:
        """Let what is held go on, if it is still there."""
        self.held = None
        self._inner.let_go()
        self._outer.let_go()

    # --- Looking ---

    async def _try_to_send(self) -> None:
        with suppress(ConnectionError, RemoteProtocolError):  # then the sender does not know
            await self._sender.try_to_send(self._text, self._client_id)

    @property
    def _known(self) -> bool:
        return self._text in self._sender.stored

    @property
    def _shown(self) -> int:
        return said(self._receiver).count(self._text)

    async def _stored(self) -> int:
        # A new connection each time: Redis may have been killed since the last look.
        async with Redis.from_url(self._engine.url) as redis:
            records: Any = await redis.xrange(topic_of(self._sender.destination))
        return sum(self._text.encode() in fields.get(b"body", b"") for __, fields in records)

    async def _note(self, name: str) -> Fate:
        fate = await self.fate()
        self.steps = Steps([*self.steps.steps, (name, fate)])
        return fate
