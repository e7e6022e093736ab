"""The ledger: what a chat has confirmed, compared with what each member received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chatlab.lab.clients import StompMember
from chatlab.locale import ngettext

__all__ = ["Ledger", "ledger", "ledger_of", "said"]


def said(client: StompMember) -> list[str]:
    """Return the texts a member received, without the senders' names."""
    return [text.partition(": ")[2] for text in client.received]


@dataclass(frozen=True)
class Ledger:
    """What was sent in a room, compared with what each member received."""

    sent: int  # messages whose RECEIPT came: the chat has confirmed that it keeps them
    lost: int  # confirmed messages that a member did not receive, counted for each member
    repeated: int  # repeats of a message that a member received more than once
    out_of_order: int  # members that received an order different from the first member's

    def __str__(self) -> str:
        text = ngettext(
            "{sent} sent, {lost} lost, {repeated} shown twice, {members} member saw another order",
            "{sent} sent, {lost} lost, {repeated} shown twice, {members} members saw another order",
            self.out_of_order,
        )
        return text.format(sent=self.sent, lost=self.lost, repeated=self.repeated, members=self.out_of_order)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost or repeated, and all members received the same order."""
        return not (self.lost or self.repeated or self.out_of_order)


def ledger(sent: Sequence[str], shown: Sequence[Sequence[str]]) -> Ledger:
    """Compare the confirmed texts with what each member received."""
    confirmed = set(sent)
    counts = [Counter(each) for each in shown]
    orders = [[text for text in each if text in confirmed] for each in shown]
    return Ledger(
        sent=len(sent),
        lost=sum(len(confirmed - count.keys()) for count in counts),
        repeated=sum(times - 1 for count in counts for times in count.values()),
        out_of_order=sum(order != orders[0] for order in orders),
    )


def ledger_of(clients: Sequence[StompMember]) -> Ledger:
    """Return the ledger of these members: every text that one of them has a receipt for, against all their logs."""
    return ledger([text for client in clients for text in client.stored], [said(client) for client in clients])
