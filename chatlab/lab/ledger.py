"""The ledger: what a chat promised to keep, against what each member was shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chatlab.lab.clients import StompMember

__all__ = ["Ledger", "ledger", "ledger_of", "said"]


def said(client: StompMember) -> list[str]:
    """What a member was shown, without the senders' names."""
    return [text.partition(": ")[2] for text in client.received]


@dataclass(frozen=True)
class Ledger:
    """What was said in a room against what each member was shown."""

    sent: int  # messages whose RECEIPT came: the chat has promised to keep these
    lost: int  # promised, and not shown to somebody
    repeated: int  # shown to somebody more than once
    out_of_order: int  # members that were shown an order different from the first one's

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.lost} lost, {self.repeated} shown twice, "
            f"{self.out_of_order} members saw another order"
        )

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing twice, one order for all."""
        return not (self.lost or self.repeated or self.out_of_order)


def ledger(sent: Sequence[str], shown: Sequence[Sequence[str]]) -> Ledger:
    """Hold what was promised against what each member was shown."""
    promised = set(sent)
    counts = [Counter(each) for each in shown]
    orders = [[text for text in each if text in promised] for each in shown]
    return Ledger(
        sent=len(sent),
        lost=sum(len(promised - count.keys()) for count in counts),
        repeated=sum(times - 1 for count in counts for times in count.values()),
        out_of_order=sum(order != orders[0] for order in orders),
    )


def ledger_of(clients: Sequence[StompMember]) -> Ledger:
    """The ledger of these members as they stand: everything that any of them has a receipt for, against all logs."""
    return ledger([text for client in clients for text in client.stored], [said(client) for client in clients])
