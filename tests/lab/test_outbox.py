"""A member's outbox, on a real chat that goes away and comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from chatlab.lab.clients import MemberState, StompMember
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.ledger import said
from chatlab.lab.outbox import Outbox
from chatlab.lab.until import until
from chatlab.lab.wire.wire import Wire


@pytest_asyncio.fixture
async def cluster(fresh_valkey: Engine) -> AsyncIterator[Cluster]:
    async with Cluster(fresh_valkey.url, instances=1) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def member(cluster: Cluster) -> AsyncIterator[StompMember]:
    member = StompMember(cluster.urls[0], "가람")
    await member.connect()
    yield member
    await member.close()


async def test_lines_typed_while_the_server_is_dead_arrive_later_once_and_in_order(
    cluster: Cluster, member: StompMember
) -> None:
    async with await Outbox(member).start() as outbox:
        cluster.kill(0)
        await member.until(lambda: member.state is MemberState.CONNECTING)
        outbox.put("점심 먹을까요?")
        outbox.put("저는 배고파요")
        assert outbox.waiting == ["점심 먹을까요?", "저는 배고파요"]
        await cluster.restart(0)
        await member.heard("저는 배고파요", timeout=10)
        await member.until(lambda: not outbox.waiting)
        assert said(member) == member.sent == member.stored == ["점심 먹을까요?", "저는 배고파요"]


async def test_a_line_whose_receipt_is_lost_with_the_connection_is_sent_again_and_stored_once(cluster: Cluster) -> None:
    async with Wire(cluster.urls[0]) as wire:
        member = StompMember(wire.url, "가람")
        await member.connect()
        await member.send("먼저 한 줄")  # a member that has received nothing has no id to come back with
        await member.heard("먼저 한 줄")
        wire.when(wire.reset, kind="RECEIPT", sender="server")
        async with await Outbox(member).start() as outbox:
            outbox.put("들려요?")
            await until(lambda: "들려요?" in member.stored, timeout=10)
            outbox.put("끝")
            await member.heard("끝", timeout=10)
        assert wire.trace.filter(kind="SEND", where=lambda event: "들려요?" in event.summary).events[1:]
        assert said(member) == ["먼저 한 줄", "들려요?", "끝"]
        await member.close()


async def test_a_line_that_redis_cannot_store_waits_for_it(
    cluster: Cluster, member: StompMember, fresh_valkey: Engine
) -> None:
    async with await Outbox(member).start() as outbox:
        await fresh_valkey.shut_down()
        outbox.put("들려요?")
        await fresh_valkey.restart()
        await member.heard("들려요?", timeout=15)
        await member.until(lambda: not outbox.waiting)
        assert said(member) == ["들려요?"]


async def test_a_line_that_the_chat_never_takes_is_dropped_with_the_reason(
    cluster: Cluster, member: StompMember
) -> None:
    async with await Outbox(member).start() as outbox:
        outbox.put("")  # the chat takes no empty message
        outbox.put("다음 줄")
        await member.heard("다음 줄")
        assert not any(text == "" for text in member.stored)
        assert any(line.text.startswith("not sent: ") for line in member.lines)


async def test_a_member_that_is_coming_back_can_be_closed(cluster: Cluster, member: StompMember) -> None:
    cluster.kill(0)
    await member.until(lambda: member.state is MemberState.CONNECTING)
    await member.close()
    attempts = member.stomp.attempts
    await cluster.restart(0)
    assert member.state is MemberState.CLOSED
    assert member.stomp.attempts == attempts
