"""The near end of every subscription: deliveries in order, then an end that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chatlab.brokers.inbox import ForwardingInbox, Inbox
from chatlab.brokers.port import Record
from chatlab.errors import SubscriptionLost

ONE, TWO, THREE = (Record("t", f"{n}-0", b"%d" % n) for n in (1, 2, 3))


async def test_a_batch_holds_all_waiting_records_up_to_the_limit() -> None:
    inbox = Inbox("t")
    inbox.put([ONE, TWO, THREE])
    assert await inbox.batch(2) == [ONE, TWO]
    assert await inbox.batch() == [THREE]


async def test_a_reader_waits_for_the_next_record() -> None:
    inbox = Inbox("t")
    reading = asyncio.create_task(inbox.batch())
    await asyncio.sleep(0)
    assert not reading.done()
    inbox.put([ONE])
    assert await reading == [ONE]


async def test_records_that_arrived_before_the_end_can_be_read() -> None:
    inbox = Inbox("t")
    inbox.put([ONE])
    inbox.end(SubscriptionLost("the engine went away"))
    assert await anext(inbox) == ONE
    for _ in range(2):
        with pytest.raises(SubscriptionLost, match="the engine went away"):
            await anext(inbox)


async def test_closing_ends_the_loop_of_a_waiting_reader() -> None:
    inbox = Inbox("t")

    async def read() -> list[Record]:
        return [record async for record in inbox]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    inbox.put([ONE])
    inbox.end()
    assert await reading == [ONE]


async def test_the_first_reason_for_an_end_is_raised() -> None:
    inbox = Inbox("t")
    inbox.end(SubscriptionLost("first"))
    inbox.end(SubscriptionLost("second"))
    with pytest.raises(SubscriptionLost, match="first"):
        await inbox.batch()


async def test_each_read_after_a_loss_raises_where_to_resume() -> None:
    inbox = Inbox("t")
    inbox.end(SubscriptionLost("trimmed", resume="5-0", restarted=True))
    for _ in range(2):
        with pytest.raises(SubscriptionLost, match="trimmed") as caught:
            await inbox.batch()
        assert (caught.value.resume, caught.value.restarted) == ("5-0", True)


async def test_waiting_and_arriving_records_are_forwarded_in_the_same_call() -> None:
    inbox, got = ForwardingInbox("t"), list[Record]()
    inbox.put([ONE])
    forwarding = asyncio.create_task(inbox.forward(got.extend))
    await asyncio.sleep(0)
    assert got == [ONE]
    inbox.put([TWO])
    inbox.put([THREE])
    assert got == [ONE, TWO, THREE]
    inbox.end()
    inbox.put([ONE])
    await forwarding
    assert got == [ONE, TWO, THREE]


async def test_forwarding_ends_with_the_reason_of_the_subscriptions_end() -> None:
    inbox = ForwardingInbox("t")
    forwarding = asyncio.create_task(inbox.forward(lambda records: None))
    await asyncio.sleep(0)
    inbox.end(SubscriptionLost("the engine went away"))
    with pytest.raises(SubscriptionLost, match="the engine went away"):
        await forwarding


async def test_an_error_in_deliver_is_raised_to_the_reader_and_not_the_engine() -> None:
    def fail(records: Sequence[Record]) -> None:
        raise ZeroDivisionError

    inbox = ForwardingInbox("t")
    forwarding = asyncio.create_task(inbox.forward(fail))
    await asyncio.sleep(0)
    inbox.put([ONE])
    with pytest.raises(ZeroDivisionError):
        await forwarding


async def test_after_a_cancelled_forwarding_records_wait_again() -> None:
    inbox, got = ForwardingInbox("t"), list[Record]()
    forwarding = asyncio.create_task(inbox.forward(got.extend))
    await asyncio.sleep(0)
    forwarding.cancel()
    await asyncio.wait([forwarding])
    inbox.put([ONE])
    assert got == []
    assert await inbox.batch() == [ONE]
