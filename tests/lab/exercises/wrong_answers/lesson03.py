"""Plausible wrong answers to lesson 03's exercises, each with part of the sentence that its check must give."""

import asyncio
import contextlib
import re
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)


@wrong("03.1", "has the article's form")
def always_from(name: str, text: str) -> str:
    return f"Server received from {name}: {text}"


@wrong("03.1", "says who sent the text")
def never_from(name: str, text: str) -> str:
    return f"Server received: {text}"


@wrong("03.1", "passed on unchanged")
def trimmed(name: str, text: str) -> str:
    return f"Server received{f' from {name}' if name else ''}: {text.strip()}"


@wrong("03.1", "one space follows the colon")
def without_a_space(name: str, text: str) -> str:
    return f"Server received{f' from {name}' if name else ''}:{text}"


@wrong("03.2", "must be an `async def`")
def not_async(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)


@wrong("03.2", "even the sender")
async def not_to_the_sender(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    async for text in session:
        for each in sessions - {session}:
            await each.send(f"Server received: {text}")


@wrong("03.2", "more than one text")
async def one_text_only(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    text = await session.recv()
    for each in list(sessions):
        await each.send(f"Server received: {text}")
    await session.wait_closed()
    sessions.discard(session)


@wrong("03.2", "removed from `sessions` however it ends")
async def leaves_only_after_a_clean_close(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    async for text in session:
        for each in list(sessions):
            await each.send(f"Server received: {text}")
    sessions.discard(session)


@wrong("03.2", "iterate over a copy of `sessions`")
async def iterates_over_the_set_itself(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in sessions:
                await each.send(f"Server received: {text}")
    finally:
        sessions.discard(session)


@wrong("03.2", "also after a polite close")
async def leaves_only_after_an_error(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in list(sessions):
                await each.send(f"Server received: {text}")
    except Exception:
        sessions.remove(session)


@wrong("03.2", "must not cost the sender its connection")
async def forgets_that_a_member_may_go_meanwhile(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in list(sessions):
                await each.send(f"Server received: {text}")
    finally:
        sessions.discard(session)


@wrong("03.2", "must not cost the sender its connection")
async def expects_only_members_who_vanish(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in list(sessions):
                try:
                    await each.send(f"Server received: {text}")
                except ConnectionClosedError:
                    sessions.discard(each)
    finally:
        sessions.discard(session)


@wrong("03.2", "must not stop the text for the others")
async def gives_up_at_the_first_who_has_gone(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            with contextlib.suppress(ConnectionClosed):
                for each in reversed(list(sessions)):
                    await each.send(f"Server received: {text}")
    finally:
        sessions.discard(session)


@wrong("03.2", "missed one because another had left")
async def one_try_around_the_whole_loop(session: Any, sessions: set[Any]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            try:
                for each in list(sessions):
                    await each.send(f"Server received: {text}")
            except ConnectionClosed:
                pass
    finally:
        sessions.discard(session)


@wrong("03.3", "not only the first")
def the_first_only(origin: str | None, ours: list[str]) -> bool:
    return origin is None or origin == ours[0]


@wrong("03.3", "a client without an Origin")
def browsers_only(origin: str | None, ours: list[str]) -> bool:
    return origin in ours


@wrong("03.3", "a name that begins like ours")
def begins_alike(origin: str | None, ours: list[str]) -> bool:
    return origin is None or any(origin.startswith(each) for each in ours)


@wrong("03.3", "another scheme")
def host_only(origin: str | None, ours: list[str]) -> bool:
    hosts = {each.split("//")[1] for each in ours}
    return origin is None or (origin.split("//")[-1] in hosts and "?" not in origin)


@wrong("03.3", "only None says that none was sent")
def an_empty_origin_too(origin: str | None, ours: list[str]) -> bool:
    return not origin or origin in ours


@wrong("03.3", "a name that ends like ours")
def ends_alike(origin: str | None, ours: list[str]) -> bool:
    return origin is None or any(_host(origin).endswith(_host(each)) for each in ours)


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


@wrong("03.3", "a dot is a dot")
def with_bare_dots(origin: str | None, ours: list[str]) -> bool:
    return origin is None or any(re.fullmatch(each, origin) for each in ours)


@wrong("03.4", "must block nobody")
async def one_after_another(sessions: set[Any], text: str) -> None:
    for session in list(sessions):
        await session.send(text)


@wrong("03.4", "must block nobody")
async def all_at_once_but_awaited(sessions: set[Any], text: str) -> None:
    await asyncio.gather(*(session.send(text) for session in sessions), return_exceptions=True)


@wrong("03.4", "at most 1,000,000 bytes may wait")
async def without_a_limit(sessions: set[Any], text: str) -> None:
    broadcast(sessions, text)


tasks: set[Any] = set()


@wrong("03.4", "at most 1,000,000 bytes may wait")
async def a_task_for_each_send(sessions: set[Any], text: str) -> None:
    for session in sessions:
        task = asyncio.create_task(session.send(text))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


queues: dict[Any, asyncio.Queue[str]] = {}


@wrong("03.4", "at most 1,000,000 bytes may wait")
async def a_queue_without_an_end_for_each_member(sessions: set[Any], text: str) -> None:
    for session in sessions:
        if session not in queues:
            queues[session] = asyncio.Queue()
            tasks.add(asyncio.create_task(_pump(session, queues[session])))
        queues[session].put_nowait(text)


async def _pump(session: Any, queue: asyncio.Queue[str]) -> None:
    while True:
        await session.send(await queue.get())


@wrong("03.4", "at most 1,000,000 bytes may wait")
async def a_limit_far_too_high(sessions: set[Any], text: str) -> None:
    slow = {each for each in sessions if _waiting(each) > 100_000_000}
    for each in slow:
        each.transport.abort()
    broadcast(sessions - slow, text)


@wrong("03.4", "even the sender")
async def to_one_only(sessions: set[Any], text: str) -> None:
    await next(iter(sessions)).send("")


@wrong("03.4", "otherwise it would miss texts and never know")
async def drops_texts_while_a_member_is_slow(sessions: set[Any], text: str) -> None:
    if text.startswith("#") and not text.startswith("#79 ") and any(_waiting(each) for each in sessions):
        return
    broadcast(sessions, text)


def _waiting(session: Any) -> int:
    return int(session.transport.get_write_buffer_size())
