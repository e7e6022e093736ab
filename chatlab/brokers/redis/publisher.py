"""Publishing to Redis: all publishes of one loop turn leave in one pipeline, and none is lost silently.

The next pipeline fills while one is under way, so batches grow with load and a single message never waits. When the
connection breaks, unsent commands wait for the next connection. A command that was sent but not answered is sent again
if repeating is harmless (`repeatable`), else it fails: its outcome is unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError

from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.queries import BACKOFF
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, ChatlabError, LinkLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

MAX_COMMANDS, MAX_BYTES = 1000, 1 << 20  # in one pipeline: a longer one would delay its first replies
CLOSED = "this broker is closed"
T = TypeVar("T")
NOT_EXECUTED = (NoScriptError, ReadOnlyError)  # the server restarted, or has become a replica


@dataclass(slots=True, eq=False)
class Publication:
    """A command, and the future that gets its converted reply."""

    command: Command
    size: int
    convert: Callable[[Any], Any]
    repeatable: bool
    deadline: float  # on the loop's clock
    reply: asyncio.Future[Any]
    sent: bool = False  # at least once: the server may have executed it, even without a reply


class Publisher:
    """Sends commands over one link, in the order they were submitted.

    `prepare` is called on every new connection; it may return a command that ends each pipeline (see `durability`).
    """

    def __init__(self, link: Link, prepare: Callable[[Link], Awaitable[Command | None]], patience: float) -> None:
        self._link = link
        self._prepare = prepare
        self._patience = patience
        self._outbox: deque[Publication] = deque()
        self._filled = asyncio.Event()
        self._seal: Command | None = None
        self._is_open = False  # started, and not closed
        self._tasks = Tasks(log)
        self._retry = Retry(on=(LinkLost, RedisError, ChatlabError), backoff=BACKOFF, on_failure=self._retry_later)
        self._unanswered: deque[Publication] = deque()  # by deadline; answered ones are removed from the front
        # for the first deadline: one timer per publication would cost more
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Return whether the link was up when last used."""
        return self._link.is_open and not self._tasks.fault

    async def start(self) -> None:
        """Connect, or raise LinkLost."""
        await self._open()
        self._is_open = True
        self._tasks.start(self._run(), name="redis publisher", on_failure=self._fail_all)

    async def submit(self, command: Command, size: int, *, repeatable: bool = False) -> Any:
        """Send a command; return its reply. Raises BrokerUnavailable if none came within `patience` seconds."""
        return await self.begin(command, size, as_it_is, repeatable=repeatable)

    def begin(
        self, command: Command, size: int, convert: Callable[[Any], T], *, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """Like `submit`, without waiting: the future gets the reply converted by `convert`."""
        loop = asyncio.get_running_loop()
        publication = Publication(
            command, size, convert, repeatable, loop.time() + self._patience, loop.create_future()
        )
        if not self._is_open or self._tasks.fault:
            fault = self._tasks.fault
            fail(publication, BrokerUnavailable(fault, outcome_unknown=False) if fault else BrokerClosed(CLOSED))
            return publication.reply
        self._outbox.append(publication)
        self._filled.set()
        while self._unanswered and self._unanswered[0].reply.done():
            self._unanswered.popleft()
        self._unanswered.append(publication)
        if self._alarm is None:
            self._alarm = loop.call_at(publication.deadline, self._give_up)
        return publication.reply

    async def aclose(self) -> None:
        """Stop; unanswered commands fail."""
        self._is_open = False
        await self._tasks.aclose()
        for publication in self._outbox:
            fail(publication, BrokerUnavailable(CLOSED) if publication.sent else BrokerClosed(CLOSED))
        self._outbox.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        await self._link.close()

    def _give_up(self) -> None:
        """Fail publications past their deadline; unsent ones are never sent."""
        loop = asyncio.get_running_loop()
        self._alarm = None
        while self._unanswered:
            publication = self._unanswered[0]
            if not publication.reply.done() and publication.deadline > loop.time():
                self._alarm = loop.call_at(publication.deadline, self._give_up)
                return
            did = "confirm" if publication.sent else "accept"
            reason = f"the broker did not {did} the message within {self._patience:g} s"
            fail(publication, BrokerUnavailable(reason, outcome_unknown=publication.sent))
            self._unanswered.popleft()

    async def _open(self) -> None:
        await self._link.open()
        try:
            self._seal = await self._prepare(self._link)
        except BaseException:
            await self._link.close()
            raise

    async def _run(self) -> None:
        async for attempt in self._retry:
            with attempt:
                while True:
                    if not self._link.is_open:
                        await self._open()
                        log.info("publishing resumed")
                    await self._send_all()

    def _retry_later(self, error: Exception, seconds: float) -> None:
        if isinstance(error, LinkLost):
            log.warning("publishing paused: %s", error)
        else:  # the server cannot keep our configured promise: fail the waiting publishers
            log.error("publishing is refused: %s", error)
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        for publication in self._outbox:
            fail(publication, error)
        self._outbox.clear()

    async def _send_all(self) -> None:
        await self._filled.wait()
        if not await self._link.is_usable():
            await self._link.close()
            return
        self._filled.clear()
        while batch := self._next_batch():
            await self._send(batch)
            self._retry.reset()

    def _next_batch(self) -> list[Publication]:
        batch: list[Publication] = []
        size = 0
        while self._outbox and len(batch) < MAX_COMMANDS and size < MAX_BYTES:
            publication = self._outbox.popleft()
            if not publication.reply.done():  # its publisher has given up: do not send it
                publication.sent = True
                batch.append(publication)
                size += publication.size
        return batch

    async def _send(self, batch: list[Publication]) -> None:
        replies: list[Any] = []
        commands = [publication.command for publication in batch]
        try:
            await self._link.pipeline(commands if self._seal is None else [*commands, self._seal], replies)
        except BaseException as error:
            answered = 0 if self._seal is not None else len(replies)
            self._settle(batch[:answered], replies)
            closed = isinstance(error, asyncio.CancelledError)
            self._put_back(batch[answered:], "this broker was closed" if closed else str(error))
            raise
        if self._seal is not None:
            replies = sealed(replies)
        if refused := self._settle(batch, replies):
            self._put_back_in_front(refused)
            await self._link.close()
            raise LinkLost("the server accepts no writes now")

    def _settle(self, batch: list[Publication], replies: list[Any]) -> list[Publication]:
        """Set each publication's reply; return those that the server did not execute."""
        refused = []
        for publication, reply in zip(batch, replies, strict=False):
            if isinstance(reply, NOT_EXECUTED):
                refused.append(publication)
            elif isinstance(reply, Exception):
                fail(publication, reply)
            elif not publication.reply.done():
                publication.reply.set_result(publication.convert(reply))
        return refused

    def _put_back(self, batch: list[Publication], reason: str) -> None:
        """After a loss: requeue what may be sent twice, fail the rest."""
        for publication in batch:
            if not publication.repeatable:
                fail(publication, BrokerUnavailable(reason))
        self._put_back_in_front([publication for publication in batch if publication.repeatable])

    def _put_back_in_front(self, publications: list[Publication]) -> None:
        self._outbox.extendleft(reversed(publications))
        if publications:
            self._filled.set()


def as_it_is(reply: Any) -> Any:
    """Return the reply unchanged."""
    return reply


def fail(publication: Publication, error: Exception) -> None:
    """Fail a publication with one of chatlab's errors."""
    if not publication.reply.done():
        publication.reply.set_exception(error if isinstance(error, ChatlabError) else broker_error(error))


def broker_error(error: Exception) -> BrokerError:
    """Return BrokerUnavailable for a temporary refusal (memory full, disk failing), else BrokerError."""
    temporary = isinstance(error, OutOfMemoryError) or str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY"))
    return BrokerUnavailable(str(error), outcome_unknown=False) if temporary else BrokerError(str(error))


def sealed(replies: list[Any]) -> list[Any]:
    """Return the replies of a pipeline that ended with WAITAOF; each is an error if the disk does not have them."""
    *stored, synced = replies
    if isinstance(synced, Exception) or synced[0] < 1:
        not_synced = BrokerUnavailable(f"the server stored the message but did not sync it to disk: {synced}")
        return [reply if isinstance(reply, Exception) else not_synced for reply in stored]
    return stored
