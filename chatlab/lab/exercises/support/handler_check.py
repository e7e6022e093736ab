"""The check of 07.5: a chat's handler on two servers that share no memory, and eight faults at named moments.

Each fault is a story with the same steps in every run. If a rule breaks, the story so far is the evidence.

    two servers that share no memory     what both must know has to be in Redis
    after the XADD, before its reply     the connection to Redis is lost after each command that stores, in turn
    before the receipt                   the member's connection is lost when the receipt arrives
    at the other server                  a repeat comes there, while the first server is still storing
    while replaying                      a record is stored after each of the first two reads
    a poison record                      a record without `text`
    a slow consumer                      a member that does not read
    Redis gone                           it is killed and comes back, and one member only listens

Left out: the exercise's texts and its reference solution (`lessons/lesson07.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import WebSocketException

from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.exercises.support.faults import CommandTap, Story, twin
from chatlab.lab.exercises.support.members import (
    KillableRedis,
    Member,
    Serving,
    killable_redis,
    members,
    not_reading,
    serving,
)
from chatlab.lab.exercises.support.redis import break_off, tapped
from chatlab.lab.exercises.support.rooms import must_wait
from chatlab.lab.until import until
from chatlab.locale import _

__all__ = ["check_handler"]

Handler = Callable[[ServerConnection, Any, str, str], Awaitable[None]]
LONG = "x" * 64_000
LONGS = 60  # more than a connection's buffers hold
SECONDS = 2.0  # for what takes a few milliseconds


class Chat:
    """Two servers that run a learner's handler, each with memory and a client of its own, on one Redis."""

    def __init__(self, killable: KillableRedis, servers: list[Serving], taps: list[CommandTap]) -> None:
        self.killable = killable
        self.servers = servers
        self.taps = taps
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(2)  # an id of an earlier check may still be in somebody's memory

    @property
    def urls(self) -> list[str]:
        """The addresses of the two servers."""
        return [server.url for server in self.servers]

    def id(self) -> str:
        """Return a new client_id."""
        return f"{self._run}-{next(self._numbers)}"

    async def stream(self) -> list[tuple[str, str]]:
        """Return the messages in Redis: (id, text)."""
        records = await self.killable.direct.xrange(self.killable.stream)
        return [(id, fields["text"]) for id, fields in records if "text" in fields]

    async def stored(self, text: str) -> int:
        """Return how often a text is in the stream."""
        return [each for __, each in await self.stream()].count(text)

    def error(self) -> Exception | None:
        """Return the first error of a handler that no outage explains."""
        return next((error for server in self.servers for error in server.errors), None)


@contextlib.asynccontextmanager
async def _two_servers(answer: Handler) -> AsyncIterator[Chat]:
    async with contextlib.AsyncExitStack() as stack:
        killable = await stack.enter_async_context(killable_redis())
        servers, taps = [], []
        for handler in (answer, twin(answer)):
            taps.append(tap := CommandTap())
            redis = await stack.enter_async_context(tapped(killable.wire.url, tap))
            handle = _with(handler, redis, killable.stream)
            servers.append(await stack.enter_async_context(serving(handle)))
        yield Chat(killable, servers, taps)


def _with(handler: Handler, redis: Any, stream: str) -> Callable[[ServerConnection, str], Awaitable[None]]:
    async def handle(socket: ServerConnection, after: str) -> None:
        await handler(socket, redis, stream, after)

    return handle


async def check_handler(answer: Handler) -> None:
    """Run a learner's handler through the rules and the faults; raise NotYet for the first that breaks it."""
    must_wait(answer)
    async with _two_servers(answer) as chat:
        for case in CASES:
            try:
                await case(chat)
            except NotYet as broken:
                error = chat.error()
                if error is not None and case is not _a_poison_record:
                    raise error from None
                raise broken from error
            with contextlib.suppress(TimeoutError):  # the next case begins with nobody connected
                await until(lambda: not any(server.open for server in chat.servers), timeout=SECONDS)


async def _joined(chat: Chat, server: int, count: int = 1) -> None:
    """Wait until so many members are connected to a server."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: len(chat.servers[server].open) >= count, timeout=SECONDS)


# --- Without a fault ---


async def _send(member: Member, text: str, client_id: str) -> None:
    """Send once. If the connection is lost, no receipt comes, and the check notices that."""
    with contextlib.suppress(OSError, WebSocketException):
        await member.send(text, client_id)


async def _confirms_what_is_stored(chat: Chat) -> None:
    garam, id = Member("가람", chat.urls[0]), chat.id()
    async with members(garam):
        await _send(garam, "안녕 👋", id)
        if not await garam.until(lambda: id in garam.stored):
            raise NotYet(
                _("a text that is stored is answered by its receipt, {'stored': client_id}"),
                _("receipts: {receipts}").format(receipts=sorted(garam.stored)),
            )
        for __ in range(50):  # another rule covers a receipt that came too early
            if await chat.stream():
                break
            await asyncio.sleep(0.01)
        if [text for __, text in await chat.stream()] != ["안녕 👋"]:
            raise NotYet(
                _("a text is added to the stream, in the field `text`"),
                await chat.killable.direct.xrange(chat.killable.stream),
            )
        garam.stored.clear()
        await _send(garam, "안녕 👋", id)
        again = await garam.until(lambda: id in garam.stored)
        if (count := await chat.stored("안녕 👋")) != 1:
            raise NotYet(
                _("a repeat under the same client_id adds no second record"),
                _("the stream has it {count} times").format(count=count),
            )
        if not again:
            raise NotYet(
                _("a repeat gets its receipt too: the first one may have been lost"),
                _("{id} was sent twice").format(id=id),
            )
        await _send(garam, "안녕 👋", other := chat.id())
        await garam.until(lambda: other in garam.stored)
        if (count := await chat.stored("안녕 👋")) != 2:
            raise NotYet(
                _("the same text under another client_id is another message"),
                _("the stream has it {count} times").format(count=count),
            )


async def _shows_every_record(chat: Chat) -> None:
    garam, nuri = Member("가람", chat.urls[0]), Member("Nuri", chat.urls[1])
    async with members(garam, nuri):
        await garam.say("둘째")
        stored = await chat.stream()
        for each in (garam, nuri):
            if not await each.until(lambda each=each: len(each.shown) >= len(stored)):  # type: ignore[misc]  # mypy cannot infer a lambda's default
                raise NotYet(
                    _("every member on every server is shown every record, including those from before it joined"),
                    _("the stream has {stored}; {name} was shown {shown}").format(
                        stored=stored, name=each.name, shown=each.shown
                    ),
                )
            if each.shown != stored:
                raise NotYet(
                    _("a record is shown as {'id': its id, 'text': its text}"),
                    _("the stream has {stored}; {name} was shown {shown}").format(
                        stored=stored, name=each.name, shown=each.shown
                    ),
                )
    later = Member("하늘", chat.urls[1], after=stored[0][0])
    async with members(later):
        await later.until(lambda: len(later.shown) >= len(stored) - 1)
        if later.shown != stored[1:]:
            raise NotYet(
                _("a returning member is shown the records after the id that it names, and nothing twice"),
                _("the stream has {stored}; a member that had seen {id} was shown {shown}").format(
                    stored=stored, id=stored[0][0], shown=later.shown
                ),
            )


async def _waits_for_redis(chat: Chat) -> None:
    garam, id = Member("가람", chat.urls[0], after=await _end(chat)), chat.id()
    async with members(garam):
        await _joined(chat, 0)
        chat.killable.wire.stall(sender="client")
        try:
            await _send(garam, "셋째", id)
            if await garam.until(lambda: id in garam.stored, 0.3):
                raise NotYet(
                    _("a receipt comes when the record is stored, not before"), _("Redis had not been reached yet")
                )
        finally:
            chat.killable.wire.resume()
        if not await garam.until(lambda: id in garam.stored, 3):
            raise NotYet(
                _("a receipt comes when the record is stored"), _("Redis was slow for a moment, and then answered")
            )


async def _end(chat: Chat) -> str:
    """Return the id of the newest record."""
    return (await chat.killable.direct.xrevrange(chat.killable.stream, count=1))[0][0]  # type: ignore[no-any-return]  # redis-py's reply is Any


async def _ends_with_its_member(chat: Chat) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: not any(server.open for server in chat.servers), timeout=2.5)
    if any(server.open for server in chat.servers):
        raise NotYet(
            _("when a member has left, its handler ends"), _("all members have left, and a handler still runs")
        )
    waiting = 0
    for __ in range(30):
        waiting = (await chat.killable.direct.info("clients"))["blocked_clients"]
        if not waiting:
            return
        await asyncio.sleep(0.05)
    raise NotYet(
        _("when a member has left, its reader ends too, or readers pile up"),
        _("all members have left; readers that still wait in Redis: {waiting}").format(waiting=waiting),
    )


# --- The faults ---

NOT_TWICE = _("whatever happens, nothing is stored twice")
ONE_STEP = _("to look whether a text is stored and to store it must be one step: a repeat may come in between")
CONTINUES = _(
    "after an outage every member continues: when the reader dies, the connection must end, so that the member comes "
    "back"
)


async def _receipt(story: Story, member: Member, id: str, seconds: float = SECONDS) -> None:
    """Wait for a receipt; a chat that never gives it has not confirmed anything."""
    if not await member.until(lambda: id in member.stored, seconds):
        story.add(_("no receipt for {id} has come in {seconds} s").format(id=id, seconds=seconds))
        raise NotYet(_("whatever happens, a text that is sent again gets its receipt in the end"), story)


async def _stored_once(chat: Chat, story: Story, text: str, rule: str) -> None:
    """Check that a confirmed text is in the stream, once; `rule` says why it is not there twice."""
    count = await chat.stored(text)
    story.add(_("the stream has {text!r} {count} times").format(text=text, count=count))
    if count == 0:
        raise NotYet(_("every text that was promised is in the stream"), story)
    if count > 1:
        raise NotYet(rule, story)


async def _shown_once(chat: Chat, story: Story, rule: str, *people: Member) -> None:
    """Check that members are shown all records after the one they began with, once, in the stream's order."""
    for each in people:
        wanted = [record for record in await chat.stream() if _number(record[0]) > _number(each.first)]
        await each.until(lambda each=each, wanted=wanted: len(each.shown) >= len(wanted), SECONDS)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        if each.shown != wanted:
            mine, all_of_it = [text[:12] for text in each.texts], [text[:12] for __, text in wanted]
            story.add(_("{name} was shown {texts}").format(name=each.name, texts=mine))
            story.add(_("the stream has {texts}").format(texts=all_of_it))
            twice = len(set(each.shown)) < len(each.shown)
            raise NotYet(_("whatever happens, nothing is shown twice") if twice else rule, story)


def _number(id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in id.split("-"))


async def _no_shared_memory(chat: Chat) -> None:
    story, text, id = Story(_("two servers that share no memory")), _("one server"), chat.id()
    end = await _end(chat)
    here, there = Member("가람", chat.urls[0], after=end), Member("가람", chat.urls[1], after=end)
    async with members(here, there):
        await _send(here, text, id)
        await _receipt(story, here, id)
        story.add(_("가람 sends {text!r} with {id} at server 1, and gets the receipt").format(text=text, id=id))
        await _send(there, text, id)
        await _receipt(story, there, id)
        story.add(_("가람 sends the same at server 2, and gets the receipt"))
        rule = _("the two servers share no memory: what both must know is in Redis")
        await _stored_once(chat, story, text, rule)


async def _after_the_xadd(chat: Chat) -> None:
    """Lose the connection to Redis after the first, second, … command that stores a text."""
    for number in range(1, await _commands_to_store(chat) + 1):
        await _lose_the_reply(chat, number)


async def _lose_the_reply(chat: Chat, number: int) -> None:
    story = Story(_("after the XADD, before its reply"))
    text, id = _("lost reply {number}").format(number=number), chat.id()
    garam = Member("가람", *chat.urls, after=await _end(chat))
    async with members(garam):
        await _joined(chat, 0)
        chat.taps[0].reset()
        chat.taps[0].at("store", number, break_off)
        await _say(story, garam, text, id)
        story.add(_("가람 sends {text!r} with {id} at server 1").format(text=text, id=id))
        story.add(_("Redis has executed {names}; the last reply is lost").format(names=_sent(chat, number)))
        story.add(_("가람 sends it again, and gets the receipt"))
        await _stored_once(chat, story, text, NOT_TWICE)
        await _shown_once(chat, story, CONTINUES, garam)


def _sent(chat: Chat, number: int) -> str:
    """Return the names of the first commands with which server 1 stores a text."""
    return ", ".join(chat.taps[0].names[:number])


async def _commands_to_store(chat: Chat) -> int:
    """Return the number of commands with which the handler stores one text."""
    garam, id = Member("가람", chat.urls[0], after=await _end(chat)), chat.id()
    async with members(garam):
        await _joined(chat, 0)
        chat.taps[0].reset()
        await _send(garam, _("counted"), id)
        await garam.until(lambda: id in garam.stored, SECONDS)
        return min(len(chat.taps[0].names), 5)


async def _say(story: Story, member: Member, text: str, id: str) -> None:
    """Send under one id until the receipt arrives."""
    try:
        async with asyncio.timeout(2 * SECONDS):
            await member.say(text, id)
    except TimeoutError:
        await _receipt(story, member, id, 0)


async def _before_the_receipt(chat: Chat) -> None:
    story, text, id = Story(_("before the receipt")), _("lost receipt"), chat.id()
    garam = Member("가람", *chat.urls, after=await _end(chat))
    garam.drops_at_receipt = True
    async with members(garam):
        await _say(story, garam, text, id)
        story.add(_("가람 sends {text!r} with {id} at server 1").format(text=text, id=id))
        story.add(_("the receipt is on its way; 가람's connection breaks, and the receipt is lost"))
        story.add(_("가람 comes back at server 2, says its last id, and sends it again"))
        await _stored_once(chat, story, text, NOT_TWICE)
        await _shown_once(chat, story, CONTINUES, garam)


async def _at_the_other_server(chat: Chat) -> None:
    """Hold the reply to each command that stores, in turn; meanwhile let the repeat be stored at the other server."""
    for number in range(1, await _commands_to_store(chat) + 1):
        await _store_at_both(chat, number)


async def _store_at_both(chat: Chat, number: int) -> None:
    story = Story(_("at the other server"))
    text, id, end = _("two at once {number}").format(number=number), chat.id(), await _end(chat)
    here, there = Member("가람", chat.urls[0], after=end), Member("가람", chat.urls[1], after=end)
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        held.set()
        await go_on.wait()

    async with members(here, there):
        await _joined(chat, 0)
        chat.taps[0].reset()
        chat.taps[0].at("store", number, hold)
        await _send(here, text, id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.wait(), 1)
        story.add(_("가람 sends {text!r} with {id} at server 1").format(text=text, id=id))
        story.add(_("Redis has executed {names}; the last reply is late").format(names=_sent(chat, number)))
        try:
            await _send(there, text, id)
            await there.until(lambda: id in there.stored, 0.5)
        finally:
            go_on.set()
        story.add(
            _("가람 loses patience, and sends it again at server 2; then the reply reaches server 1, which goes on")
        )
        before = here.reconnections
        await here.until(lambda: id in here.stored or here.reconnections > before)
        await _stored_once(chat, story, text, ONE_STEP)


async def _while_replaying(chat: Chat) -> None:
    story = Story(_("while replaying"))
    first = await _end(chat)
    for number in (1, 2):
        await chat.killable.direct.xadd(chat.killable.stream, {"text": _("missed {number}").format(number=number)})
    tap = chat.taps[1]
    tap.reset()
    for number in (1, 2):
        tap.at("read", number, _adding(chat, _("meanwhile {number}").format(number=number)))
    later = Member("하늘", chat.urls[1], after=first)
    async with members(later):
        await later.until(lambda: len(later.shown) >= 3, SECONDS)
        await chat.killable.direct.xadd(chat.killable.stream, {"text": _("afterwards")})
        story.add(_("하늘 comes back at server 2, and has missed two records"))
        story.add(_("Redis answers the handler's first read; before it has the answer, a record is stored"))
        story.add(_("another is stored at its second read, and one afterwards"))
        rule = _("a returning member misses nothing: what is stored between two reads comes with the next")
        await _shown_once(chat, story, rule, later)


def _adding(chat: Chat, text: str) -> Callable[[], Awaitable[None]]:
    async def add() -> None:
        await chat.killable.direct.xadd(chat.killable.stream, {"text": text})

    return add


async def _a_poison_record(chat: Chat) -> None:
    story, end, id = Story(_("a poison record")), await _end(chat), chat.id()
    garam, nuri = Member("가람", *chat.urls, after=end), Member("Nuri", *chat.urls[::-1], after=end)
    async with members(garam, nuri):
        await chat.killable.direct.xadd(chat.killable.stream, {"note": _("from another program")})
        story.add(_("another program adds a record that has no field `text`"))
        story.add(_("가람 sends {text!r}").format(text=_("after it")))
        rule = _("a record without `text` is passed over, and only that one")
        try:
            async with asyncio.timeout(SECONDS):
                await garam.say(_("after it"), id)
        except TimeoutError:
            story.add(
                _("the handlers fail at it again and again; the members came back {count} times").format(
                    count=garam.reconnections + nuri.reconnections
                )
            )
            raise NotYet(rule, story) from None
        await _shown_once(chat, story, rule, garam, nuri)
        if chat.error() is not None:
            raise NotYet(rule, story)


async def _a_slow_consumer(chat: Chat) -> None:
    story, end = Story(_("a slow consumer")), await _end(chat)
    garam, nuri = Member("가람", chat.urls[0], after=end), Member("Nuri", chat.urls[0], after=end)
    async with members(garam, nuri), not_reading(f"{chat.urls[0]}/?after={end}"):
        await _joined(chat, 0, 3)
        story.add(_("a third member joins server 1 and does not read"))
        for number in range(LONGS):
            await chat.killable.direct.xadd(chat.killable.stream, {"text": f"{number} {LONG}"})
        story.add(_("{count} long texts are stored, more than its connection can hold").format(count=LONGS))
        rule = _("a member that does not read holds up nobody else")
        await _shown_once(chat, story, rule, nuri)
        try:
            async with asyncio.timeout(SECONDS):
                await garam.say(_("and now?"), chat.id())
        except TimeoutError:
            story.add(_("가람 gets no receipt"))
            raise NotYet(rule, story) from None
        await _shown_once(chat, story, rule, garam, nuri)


async def _redis_gone(chat: Chat) -> None:
    story, end = Story(_("Redis gone")), await _end(chat)
    garam, quiet = Member("가람", *chat.urls, after=end), Member("하늘", *chat.urls[::-1], after=end)
    async with members(garam, quiet):
        await garam.say(_("before"), chat.id())
        await _shown_once(chat, story, CONTINUES, garam, quiet)
        story.add(_("가람 is at server 1; 하늘 is at server 2 and only listens"))
        chat.killable.kill()
        story.add(_("Redis is killed"))
        talking = asyncio.ensure_future(garam.say(_("meanwhile"), chat.id()))
        try:
            await asyncio.wait([talking], timeout=0.2)
            await chat.killable.restart()
            story.add(_("Redis is back; 가람 has sent a text meanwhile, and sends it until the receipt comes"))
            await asyncio.wait([talking], timeout=2 * SECONDS)
            if not talking.done():
                story.add(_("no receipt has come"))
                raise NotYet(CONTINUES, story)
            await _stored_once(chat, story, _("meanwhile"), NOT_TWICE)
            await _shown_once(chat, story, CONTINUES, garam, quiet)
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)


async def _forgets_ids(chat: Chat) -> None:
    """Look whether what is kept besides the stream has an end."""
    direct, stream = chat.killable.direct, chat.killable.stream
    keys = [key async for key in direct.scan_iter("*") if key != stream]
    lasting = [key for key in keys if await direct.ttl(key) < 0]
    if lasting:
        raise NotYet(
            _("a client_id is remembered for some minutes, not for ever: its key needs an expiry"),
            _("keys without one: {keys}").format(keys=", ".join(sorted(lasting)[:5])),
        )
    if any([await direct.ttl(key) < 30 for key in keys]):
        raise NotYet(
            _("a client_id is remembered for some minutes: a member may be away that long"),
            _("keys that end within 30 s: {count}").format(count=len(keys)),
        )


CASES = (
    _confirms_what_is_stored,
    _shows_every_record,
    _waits_for_redis,
    _ends_with_its_member,
    _no_shared_memory,
    _after_the_xadd,
    _before_the_receipt,
    _at_the_other_server,
    _while_replaying,
    _a_poison_record,
    _a_slow_consumer,
    _redis_gone,
    _forgets_ids,
)
