"""The near end of publishing to Redis: publishes of one loop turn leave in one pipeline, and none is lost in silence.

While a pipeline is under way the next one gathers, so batches grow with load and a lone message waits for nothing.
When the connection breaks, what was not sent waits for the next one. What was sent but not answered is sent again if
that can do no harm (`repeatable`), else it fails loudly: its outcome is unknown.
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

MAX_COMMANDS, MAX_BYTES = 1000, 1 << 20  # of one pipeline: a long one would delay its first replies
CLOSED = "this broker is closed"
T = TypeVar("T")
NOT_EXECUTED = (NoScriptError, ReadOnlyError)  # the server refused because it restarted, or is a replica by now


@dataclass(slots=True, eq=False)
class Publication:
    """A command, and the future that takes its reply, made into what its caller wants."""

    command: Command
    size: int
    convert: Callable[[Any], Any]
    repeatable: bool
    deadline: float  # of the loop's clock
    reply: asyncio.Future[Any]
    sent: bool = False  # at least once: the server may have done it, whatever came of the reply


class Publisher:
    """Sends commands over one link, in the order they were submitted.

    `prepare` is called on every new connection; it may return a command to end each pipeline with (see `durability`).
    """

    def __init__(self, link: Link, prepare: Callable[[Link], Awaitable[Command | None]], patience: float) -> None:
        self._link = link
        self._prepare = prepare
        self._patience = patience
        self._outbox: deque[Publication] = deque()
        self._filled = asyncio.Event()
        self._seal: Command | None = None
        self._open_for_jobs = False  # started, and not closed
        self._tasks = Tasks(log)
        self._retry = Retry(on=(LinkLost, RedisError, ChatlabError), backoff=BACKOFF, on_failure=self._waits)
        self._unanswered: deque[Publication] = deque()  # by deadline; those that were answered leave from the front
        self._alarm: asyncio.TimerHandle | None = None  # for the first deadline: a timer for each job would cost more

    @property
    def connected(self) -> bool:
        """Whether the link was up when last used."""
        return self._link.is_open and not self._tasks.fault

    async def start(self) -> None:
        """Connect, or raise LinkLost."""
        await self._open()
        self._open_for_jobs = True
        self._tasks.start(self._run(), name="redis publisher", on_failure=self._fail_all)

    async def submit(self, command: Command, size: int, *, repeatable: bool = False) -> Any:
        """Send a command; return its reply. Raises BrokerUnavailable if none came within `patience` seconds."""
        return await self.begin(command, size, as_it_is, repeatable=repeatable)

    def begin(
        self, command: Command, size: int, convert: Callable[[Any], T], *, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """As `submit`, without waiting: the future gets what `convert` makes of the reply."""
        loop = asyncio.get_running_loop()
        job = Publication(command, size, convert, repeatable, loop.time() + self._patience, loop.create_future())
        if not self._open_for_jobs or self._tasks.fault:
            fault = self._tasks.fault
            fail(job, BrokerUnavailable(fault, outcome_unknown=False) if fault else BrokerClosed(CLOSED))
            return job.reply
        self._outbox.append(job)
        self._filled.set()
        while self._unanswered and self._unanswered[0].reply.done():
            self._unanswered.popleft()
        self._unanswered.append(job)
        if self._alarm is None:
            self._alarm = loop.call_at(job.deadline, self._give_up)
        return job.reply

    async def aclose(self) -> None:
        """Stop; what was not answered fails."""
        self._open_for_jobs = False
        await self._tasks.aclose()
        for job in self._outbox:
            fail(job, BrokerUnavailable(CLOSED) if job.sent else BrokerClosed(CLOSED))
        self._outbox.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        await self._link.close()

    def _give_up(self) -> None:
        """Fail the jobs whose time is over: those that were not sent will not be."""
        loop = asyncio.get_running_loop()
        self._alarm = None
        while self._unanswered:
            job = self._unanswered[0]
            if not job.reply.done() and job.deadline > loop.time():
                self._alarm = loop.call_at(job.deadline, self._give_up)
                return
            did = "confirm" if job.sent else "take"
            reason = f"the broker did not {did} the message within {self._patience:g} s"
            fail(job, BrokerUnavailable(reason, outcome_unknown=job.sent))
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
                        log.info("publishing again")
                    await self._send_all()

    def _waits(self, error: Exception, seconds: float) -> None:
        if isinstance(error, LinkLost):
            log.warning("publishing waits: %s", error)
        else:  # the server cannot do what we are configured to promise: say so to whoever waits
            log.error("publishing is refused: %s", error)
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        for job in self._outbox:
            fail(job, error)
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
            job = self._outbox.popleft()
            if not job.reply.done():  # its publisher has given up waiting: then it must not be sent either
                job.sent = True
                batch.append(job)
                size += job.size
        return batch

    async def _send(self, batch: list[Publication]) -> None:
        replies: list[Any] = []
        commands = [job.command for job in batch]
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
            raise LinkLost("the server does not take writes now")

    def _settle(self, batch: list[Publication], replies: list[Any]) -> list[Publication]:
        """Give each job its reply; return those that the server refused to look at."""
        refused = []
        for job, reply in zip(batch, replies, strict=False):
            if isinstance(reply, NOT_EXECUTED):
                refused.append(job)
            elif isinstance(reply, Exception):
                fail(job, reply)
            elif not job.reply.done():
                job.reply.set_result(job.convert(reply))
        return refused

    def _put_back(self, batch: list[Publication], reason: str) -> None:
        """After a loss in the middle: what may be sent twice is, the rest fails."""
        for job in batch:
            if not job.repeatable:
                fail(job, BrokerUnavailable(reason))
        self._put_back_in_front([job for job in batch if job.repeatable])

    def _put_back_in_front(self, jobs: list[Publication]) -> None:
        self._outbox.extendleft(reversed(jobs))
        if jobs:
            self._filled.set()


def as_it_is(reply: Any) -> Any:
    """The reply itself."""
    return reply


def fail(job: Publication, error: Exception) -> None:
    """End a job with an error of ours."""
    if not job.reply.done():
        job.reply.set_exception(error if isinstance(error, ChatlabError) else broker_error(error))


def broker_error(error: Exception) -> BrokerError:
    """A refusal for now (memory full, disk failing) is BrokerUnavailable; any other is an error in what was asked."""
    temporary = isinstance(error, OutOfMemoryError) or str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY"))
    return BrokerUnavailable(str(error), outcome_unknown=False) if temporary else BrokerError(str(error))


def sealed(replies: list[Any]) -> list[Any]:
    """The replies of a pipeline that ended with WAITAOF: worth nothing unless the disk has them."""
    *stored, synced = replies
    if isinstance(synced, Exception) or synced[0] < 1:
        not_synced = BrokerUnavailable(f"the server stored the message but did not sync it to disk: {synced}")
        return [reply if isinstance(reply, Exception) else not_synced for reply in stored]
    return stored
