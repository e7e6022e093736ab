"""Jobs that one instance should do, such as a notification or an audit log: each record goes to one member of a group.

    async def audit(record: Record) -> None: ...
    workers = Workers(broker, instance="a1", jobs=[Job("audit", ["chat-stream"], audit)])

Relaying to subscribers is the opposite: there, every instance reads every record. Here the instances share them. A
record is acknowledged after the work, so if an instance dies, another one does its work again: work must be idempotent.
Work can fail in three ways:

    NotNow, BrokerUnavailable    nothing is wrong with the record: this instance waits and retries, however long it
                                 takes. Meanwhile, the records it holds are offered to the others (`Postpones`)
    BrokerClosed                 the instance is stopping
    any other error              the record itself is at fault. It is not acknowledged, so it is redelivered; the engine
                                 sets it aside after some attempts (Redis: in the stream TOPIC:set-aside:GROUP), and it
                                 does not hold up the records behind it

The engine must have groups (brokers/port.py): Redis Streams, RabbitMQ, Kafka and memory do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from chatlab.brokers.port import Broker, GroupConsumer, HasGroups, Postpones
from chatlab.chat.destinations import ChatRecord, record_of
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, NotNow, SetupError
from chatlab.retry import Backoff, Retry
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat.workers")

Work = Callable[[ChatRecord], Awaitable[None]]

BACKOFF = Backoff(longest=2.0)  # the longest pause: work resumes at most this long after the disk is back


@dataclass(frozen=True)
class Job:
    """Work to do once for each record of some topics; `name` is the name of its group."""

    name: str
    topics: Sequence[str]
    work: Work


@dataclass
class Tally:
    """The progress of one job on this instance."""

    done: int = 0
    failed: int = 0
    ready: dict[str, asyncio.Event] = field(default_factory=dict)  # by topic: set while it is being read
    waiting: dict[str, str] = field(default_factory=dict)  # by topic: why the work has to wait


class Workers:
    """This instance's membership in each job's group, on each of its topics."""

    def __init__(self, broker: Broker, instance: str, jobs: Sequence[Job], tasks: Tasks | None = None) -> None:
        if not isinstance(broker, HasGroups):
            raise SetupError(f"jobs need a broker with groups, and {type(broker).__name__} has none")
        self._broker = broker
        self._instance = instance
        self.tallies = {job.name: Tally(ready={topic: asyncio.Event() for topic in job.topics}) for job in jobs}
        tasks = Tasks(logger) if tasks is None else tasks
        self._tasks = [
            tasks.start(self._run(job, topic), name=f"{job.name} of {topic}") for job in jobs for topic in job.topics
        ]

    async def ready(self) -> None:
        """Wait until every topic is being read."""
        for tally in self.tallies.values():
            for event in tally.ready.values():
                await event.wait()

    async def aclose(self) -> None:
        """Stop; records not acknowledged yet go to the other instances."""
        for task in self._tasks:
            await cancel(task)

    async def _run(self, job: Job, topic: str) -> None:
        tally = self.tallies[job.name]

        def log_retry(error: Exception, wait: float) -> None:
            tally.ready[topic].clear()
            logger.warning("job %s cannot read %s, next attempt in %.1f s: %s", job.name, topic, wait, error)

        retry = Retry(on=BrokerError, on_failure=log_retry)
        with suppress(BrokerClosed):
            async for attempt in retry:
                with attempt:
                    member = await self._broker.join(topic, job.name, self._instance)
                    tally.ready[topic].set()
                    await self._read(job, member, tally, retry)

    async def _read(self, job: Job, member: GroupConsumer, tally: Tally, retry: Retry) -> None:
        try:
            async for delivery in member:
                record = record_of(delivery)
                if record is None or await self._finish(job, record, member, tally):
                    await member.ack(delivery)
                retry.reset()
        finally:
            await member.aclose()
        raise BrokerUnavailable(f"the group {job.name} ended this member's subscription")

    async def _finish(self, job: Job, record: ChatRecord, member: GroupConsumer, tally: Tally) -> bool:
        retry = Retry(
            on=(NotNow, BrokerUnavailable), backoff=BACKOFF, on_failure=partial(self._log_waiting, job, record, tally)
        )
        try:
            async for attempt in retry:
                with attempt:
                    await self._do(job, record, member, first=not retry.failures)
        except BrokerClosed:
            raise
        except Exception:
            tally.failed += 1
            logger.exception("job %s failed at %s %s", job.name, record.destination, record.id)
            return False
        finally:
            if tally.waiting.pop(record.destination, ""):
                logger.info("job %s resumes at %s", job.name, record.destination)
        tally.done += 1
        return True

    async def _do(self, job: Job, record: ChatRecord, member: GroupConsumer, *, first: bool) -> None:
        try:
            await job.work(record)
        except NotNow:
            if first and isinstance(member, Postpones):
                try:
                    await member.postpone()
                except BrokerError as error:
                    logger.warning(
                        "job %s could not release its records of %s: %s",
                        job.name,
                        record.destination,
                        error,
                    )
            raise

    def _log_waiting(self, job: Job, record: ChatRecord, tally: Tally, error: Exception, wait: float) -> None:
        """Log a wait once for each reason, so that an outage of hours does not fill the log."""
        if tally.waiting.get(record.destination) != str(error):
            tally.waiting[record.destination] = str(error)
            logger.warning("job %s waits at %s %s: %s", job.name, record.destination, record.id, error)
