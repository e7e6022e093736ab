"""Jobs that one instance should do: a notification, an audit log. Each record is worked on by one member of a group.

    async def audit(record: Record) -> None: ...
    workers = Workers(broker, instance="a1", jobs=[Job("audit", ["chat-stream"], audit)])

Relaying to subscribers is the opposite: there every instance reads every record. Here the instances share them. A
record is acknowledged after the work, so one whose instance dies comes to another, which does it again: work must
bear being done twice. Work that fails is not acknowledged either, so it comes again; the engine sets it aside after
some tries (Redis: in the stream TOPIC:set-aside:GROUP), and it holds up nothing behind it.

The engine must have groups (brokers/port.py); those that have: Redis Streams, RabbitMQ, Kafka, and memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from chatlab.brokers.port import Broker, GroupSubscription, HasGroups
from chatlab.chat.destinations import Record, record_of
from chatlab.chat.relay import backoff
from chatlab.errors import BrokerError, SetupError

logger = logging.getLogger("chatlab.chat.workers")

Work = Callable[[Record], Awaitable[None]]


@dataclass(frozen=True)
class Job:
    """What is to be done once for each record of some topics, under the name of its group."""

    name: str
    topics: Sequence[str]
    work: Work


@dataclass
class Tally:
    """How one job is getting on, on this instance."""

    done: int = 0
    failed: int = 0
    ready: dict[str, asyncio.Event] = field(default_factory=dict)  # by topic: set while it is being read


class Workers:
    """This instance's member of each job's group, on each of its topics."""

    def __init__(self, broker: Broker, instance: str, jobs: Sequence[Job]) -> None:
        if not isinstance(broker, HasGroups):
            raise SetupError(f"jobs need a broker with groups, and {type(broker).__name__} has none")
        self._broker = broker
        self._instance = instance
        self.tallies = {job.name: Tally(ready={topic: asyncio.Event() for topic in job.topics}) for job in jobs}
        self._tasks = [
            asyncio.create_task(self._run(job, topic), name=f"{job.name} of {topic}")
            for job in jobs
            for topic in job.topics
        ]

    async def ready(self) -> None:
        """Wait until every topic is being read."""
        for tally in self.tallies.values():
            for event in tally.ready.values():
                await event.wait()

    async def aclose(self) -> None:
        """Stop; what was begun and not acknowledged is the others'."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, job: Job, topic: str) -> None:
        tally = self.tallies[job.name]
        attempt = 0
        while True:
            try:
                member = await self._broker.join(topic, job.name, self._instance)
                attempt = 0
                tally.ready[topic].set()
                await self._read(job, member, tally)
            except BrokerError as error:
                logger.warning("job %s waits: %s", job.name, error)
            tally.ready[topic].clear()
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _read(self, job: Job, member: GroupSubscription, tally: Tally) -> None:
        try:
            async for delivery in member:
                record = record_of(delivery)
                if record is None or await self._did(job, record, tally):
                    await member.ack(delivery)
        finally:
            await member.aclose()

    async def _did(self, job: Job, record: Record, tally: Tally) -> bool:
        try:
            await job.work(record)
        except Exception:
            tally.failed += 1
            logger.exception("job %s failed at %s %s", job.name, record.destination, record.id)
            return False
        tally.done += 1
        return True
