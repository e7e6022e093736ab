"""What is left of 200 acknowledged messages after a crash: `kill -9` and a power cut, by the settings of Redis.

    found = await what_is_left()
    found.chart()
    found.left("everysec", "power")      # messages

A run adds 200 records to a stream, one after another, and waits for Redis's answer to each. Then it kills the server,
restarts it on what is left of its files, and counts. The six runs are six servers, side by side.

`kill -9` is real. The power cut is a model: after SIGKILL, the append-only file is cut back to the length that is known
to be synced, because a disk has what was synced (fsync(2)) before the power failed, and nothing else is certain.
- With `appendfsync always`, Redis syncs before it answers, so the file's length after the last answer is synced.
- With `everysec`, a thread of Redis syncs about once a second. The length is known synced if that thread was asleep
  with nothing to do when the length was read, and has done work and sleeps again since (`SyncWatch`).
The cut comes when half of the messages are newer than the last sync that was seen. At another moment the loss would be
between none and all of the last second's messages; Redis 7.0 counts whole seconds, so that a gap may come near two.

Left out: what the operating system writes by itself before the cut, so that more may survive; pages that are half
written or written out of order; a directory that loses its entry; a disk that says "synced" and has it in a cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, Literal

from redis.asyncio import Redis

from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import charts
from chatlab.locale import _

__all__ = ["CRASHES", "SETTINGS", "Left", "Survival", "SyncWatch", "what_is_left"]

Setting = Literal["no", "everysec", "always"]
Crash = Literal["kill", "power"]
SETTINGS: Final[dict[Setting, dict[str, str]]] = {
    "no": {"appendonly": "no"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "always": {"appendonly": "yes", "appendfsync": "always"},
}
CRASHES: Final[tuple[Crash, ...]] = ("kill", "power")
STREAM: Final = "what-is-left"
MARK: Final = "what-is-left:mark"
SECONDS_BETWEEN_LOOKS: Final = 0.005
SECONDS_TO_SYNC: Final = 10.0
LONGEST_GAP: Final = 2.1  # seconds between two syncs, with `everysec`

Start = Callable[[Mapping[str, str]], Awaitable[Engine]]


@dataclass(frozen=True, slots=True)
class Left:
    """What one crash has left: `left` of `acknowledged` messages."""

    setting: Setting
    crash: Crash
    acknowledged: int
    left: int


@dataclass(frozen=True)
class Survival:
    """What each crash has left under each setting."""

    runs: Sequence[Left]

    def left(self, setting: Setting, crash: Crash) -> int:
        """Return the number of messages left."""
        return next(run.left for run in self.runs if (run.setting, run.crash) == (setting, crash))

    def chart(self) -> None:
        """Draw a bar for each run: the messages left."""
        groups = {
            _crash_name(crash): {_setting_name(each): float(self.left(each, crash)) for each in SETTINGS}
            for crash in CRASHES
        }
        acknowledged = self.runs[0].acknowledged
        charts.grouped(_("What is left of {count}").format(count=acknowledged), _("messages"), groups)

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row for each setting, with the header first."""
        head = (_("setting"), *map(_crash_name, CRASHES))
        rows = ((_setting_name(each), *(self._cell(each, crash) for crash in CRASHES)) for each in SETTINGS)
        return [head, *rows]

    def _cell(self, setting: Setting, crash: Crash) -> str:
        text = _("{left} of {acknowledged}")
        return text.format(left=self.left(setting, crash), acknowledged=self.runs[0].acknowledged)

    def __repr__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        head, *rows = [[escape(cell) for cell in row] for row in self.rows()]
        titles = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
        cells = [f"<th scope='row'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in row)}" for name, *row in rows]
        return f"<table><tr>{titles}</tr>{''.join(f'<tr>{each}</tr>' for each in cells)}</table>"


def _setting_name(setting: Setting) -> str:
    return "appendonly no" if setting == "no" else f"appendfsync {setting}"  # not shown: Redis's own words


def _crash_name(crash: Crash) -> str:
    return "kill -9" if crash == "kill" else _("power cut")


def own_redis(options: Mapping[str, str]) -> Awaitable[Engine]:
    """Start a private Redis with these settings."""
    return engines.start("redis", options=options, own=True)


async def what_is_left(messages: int = 200, *, start: Start = own_redis) -> Survival:
    """Crash a Redis under each setting in each way, all at once; return what is left of `messages`."""
    runs = [_crash(setting, crash, messages, start) for setting in SETTINGS for crash in CRASHES]
    return Survival(await asyncio.gather(*runs))


async def _crash(setting: Setting, crash: Crash, messages: int, start: Start) -> Left:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(await start(SETTINGS[setting]))
        redis = await stack.enter_async_context(Redis.from_url(engine.url))
        synced = await _talk(engine, redis, setting, messages)
        await asyncio.to_thread(engine.kill)
        if crash == "power" and setting != "no":
            with append_only_file(engine).open("r+b") as file:
                file.truncate(synced)
        await engine.restart()
        async with Redis.from_url(engine.url) as after:
            return Left(setting, crash, messages, int(await after.xlen(STREAM)))


async def _talk(engine: Engine, redis: Redis, setting: Setting, messages: int) -> int:
    """Add the messages, and return the length of the append-only file that is known to be synced then."""
    await _add(redis, range(messages // 2))
    if setting == "no":
        synced = 0
    else:
        watch = SyncWatch(engine, redis)
        synced = await watch.next_sync() if setting == "everysec" else 0
    await _add(redis, range(messages // 2, messages))
    return append_only_file(engine).stat().st_size if setting == "always" else synced


async def _add(redis: Redis, numbers: range) -> None:
    for number in numbers:
        await redis.xadd(STREAM, {"body": f"message {number}"})  # returns with Redis's answer


def append_only_file(engine: Engine) -> Path:
    """Return the file that a Redis 7 or a Valkey appends every change to."""
    assert engine.folder is not None
    [file] = (engine.folder / "appendonlydir").glob("*.incr.aof")
    return file


class SyncWatch:
    """Watches the thread of a Redis that syncs its append-only file, with `appendfsync everysec`.

    On Linux it reads how often that thread has gone to sleep (`voluntary_ctxt_switches` in proc(5)). Elsewhere
    `next_sync` waits for the longest gap between two syncs instead.
    """

    def __init__(self, engine: Engine, redis: Redis) -> None:
        self._file = append_only_file(engine)
        self._redis = redis
        self._status = _status_of_syncing_thread(engine.pid)

    async def next_sync(self) -> int:
        """Wait for a sync of everything the file has now; return the length that is synced.

        It writes a mark: if everything is synced already, Redis has no reason to sync again.
        """
        if self._status is None:
            length = self._file.stat().st_size
            await asyncio.sleep(LONGEST_GAP)
            return length
        async with asyncio.timeout(SECONDS_TO_SYNC):
            length, sleeps = await self._asleep()
            await self._redis.incr(MARK)
            while (await self._asleep())[1] == sleeps:
                pass
        return length

    async def _asleep(self) -> tuple[int, int]:
        """Wait until the thread sleeps with nothing to do; return the file's length, and how often it has slept."""
        while True:
            before = self._sleeps()
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            length = self._file.stat().st_size
            idle = not (await self._redis.info("persistence"))["aof_pending_bio_fsync"]
            if idle and self._sleeps() == before:
                return length, before

    def _sleeps(self) -> int:
        assert self._status is not None
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(fields["voluntary_ctxt_switches"])


def _status_of_syncing_thread(pid: int | None) -> Path | None:
    """Return proc's file on the thread `bio_aof` (Redis 7.0: `bio_aof_fsync`); None where there is no proc."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        if (task / "comm").read_text().startswith("bio_aof"):
            return task / "status"
    return None
