"""Two faults, `kill -9` and a power cut, and what they leave of 200 messages, by the settings of each engine.

`kill` starts an engine of its own, and kills it. `survive` runs any fault on a running engine: the power cut of
`benchmarks/power_cut.py` uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import NamedTuple

from chatlab.errors import EngineMissing, EngineUnreachable
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.trials.stores import QueueStore, Store, StreamStore, TopicStore
from chatlab.locale import _

__all__ = ["MESSAGES", "SETTINGS", "Left", "Row", "Setting", "by_engine", "kill", "survive"]

MESSAGES = 200
# A quorum queue that is less than about a second old when its RabbitMQ (3.10) is killed has no leader afterwards.
SETTLE_SECONDS = 2.0


class Row(NamedTuple):
    """One setting of one engine: how many messages it confirmed, and how many were left after each fault.

    `confirmed` is 0 where the publisher asks for no confirmation; 200 were published there, too. `after_power_cut` is
    always from the recorded run; `recorded` says that all of the row is. None: not measured.
    """

    engine: str  # "Redis Streams", "RabbitMQ", "Kafka"
    setting: str  # as in the engine's manual, such as "appendfsync everysec"
    confirmed: int
    after_kill: int | None
    after_power_cut: int | None
    recorded: bool


class Left(NamedTuple):
    """What a fault has left in one store, of how many confirmed messages."""

    confirmed: int
    left: int


@dataclass(frozen=True)
class Setting:
    """A way to keep messages: a store, on an engine with `options`. `key` is its name in files."""

    engine: str
    key: str
    title: str
    store: Callable[[str], Store]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of the engine, as `engines.start` calls it."""
        return self.engine.partition(" ")[0].lower()


def redis(key: str, title: str, **options: str) -> Setting:
    """Return a setting of a Redis server."""
    return Setting("Redis Streams", key, title, StreamStore, options)  # not shown: a product's name


def rabbitmq(key: str, title: str, type_: str, *, persistent: bool = True, confirms: bool = True) -> Setting:
    """Return a setting of a queue and its publisher."""
    return Setting("RabbitMQ", key, title, partial(QueueStore, type_=type_, persistent=persistent, confirms=confirms))


def kafka(key: str, acks: int | str, **settings: str) -> Setting:
    """Return a setting of a topic and its publisher, which has no other words than Kafka's own."""
    names = {name.replace("_", "."): value for name, value in settings.items()}
    return Setting("Kafka", key, key, partial(TopicStore, acks=acks, settings=names))


SETTINGS: Sequence[Setting] = (
    redis("no-file", _("no file"), appendonly="no", save=""),
    redis("rdb", _("snapshots (RDB) only, the default"), appendonly="no", save="3600 1 300 100 60 10000"),
    redis("everysec", "appendfsync everysec", appendfsync="everysec"),  # not shown: Redis's own words
    redis("always", "appendfsync always", appendfsync="always"),  # not shown: likewise
    rabbitmq("classic-no-confirms", _("classic queue, persistent, without confirms"), "classic", confirms=False),
    rabbitmq("classic-transient", _("classic queue, transient, with confirms"), "classic", persistent=False),
    rabbitmq("classic", _("classic queue, persistent, with confirms"), "classic"),
    rabbitmq("quorum", _("quorum queue, with confirms"), "quorum"),
    rabbitmq("stream", _("stream queue, with confirms"), "stream"),
    kafka("acks=0", 0),
    kafka("acks=1", 1),
    kafka("acks=all", "all"),
    kafka("acks=all, flush.messages=1", "all", flush_messages="1"),  # not shown: Kafka's own words
)


def by_engine(settings: Iterable[Setting] = SETTINGS) -> Iterator[list[Setting]]:
    """Yield the settings that can share an engine together: those with equal options."""
    for __, group in groupby(settings, lambda setting: (setting.engine, sorted(setting.options.items()))):
        yield list(group)


async def kill(settings: Sequence[Setting], messages: int = MESSAGES) -> list[Left] | None:
    """Kill an engine of our own with SIGKILL once it has confirmed; None if there is none to be started here."""
    try:
        engine = await engines.start(settings[0].kind, options=settings[0].options, own=True)
    except (EngineMissing, EngineUnreachable):
        return None
    async with engine:
        return await survive(engine, settings, engine.kill, engine.restart, messages=messages)


async def survive(
    engine: Engine,
    settings: Sequence[Setting],
    fault: Callable[[], None],
    restart: Callable[[], Awaitable[None]],
    *,
    messages: int = MESSAGES,
    pace: float = 0,
    before: Callable[[], None] = lambda: None,
) -> list[Left]:
    """Publish to a store of each setting, call `fault` while the publishers are connected, `restart`, count.

    Publishers without confirmations come last, each in one go, because nothing tells them how far the engine is.
    `pace`: seconds between two messages of the others. `before` is called when the stores exist and are empty.
    """
    stores = [setting.store(engine.url) for setting in settings]
    await asyncio.gather(*(store.create() for store in stores))
    if engine.kind == "rabbitmq":
        await asyncio.sleep(SETTLE_SECONDS)
    before()
    async with contextlib.AsyncExitStack() as publishers:
        confirmed = [0] * len(stores)
        for waiting, gap in ((True, pace), (False, 0)):
            chosen = [number for number, store in enumerate(stores) if store.confirms is waiting]
            publishing = (publishers.enter_async_context(stores[each].published(messages, gap)) for each in chosen)
            for each, count in zip(chosen, await asyncio.gather(*publishing), strict=True):
                confirmed[each] = count
        fault()
    await restart()
    left = await asyncio.gather(*(store.left() for store in stores))
    return [Left(*each) for each in zip(confirmed, left, strict=True)]
