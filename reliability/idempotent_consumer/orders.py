"""An order, as it travels in a message."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import BadMessage
from robust_pika import Message

MOST = 1_000_000
"""The largest amount of one order."""


@dataclass(frozen=True)
class Order:
    """``id`` names the order for good; ``amount`` is what the customer owes for it, in whole euros."""

    id: str
    customer: str
    amount: int


def read(message: Message) -> Order:
    """The order in a message. Raises BadMessage if it is not one, or has no id."""
    # An id that the sender makes up anew each time it sends is of no use: it must name the order.
    identity = message.properties.message_id
    if not identity:
        raise BadMessage("it has no message_id, so nobody can tell whether it came before; the sender has to set one")
    # (pika gives bytes for what is not UTF-8.)
    if not isinstance(identity, str) or not identity.isprintable():
        raise BadMessage("its message_id is not a printable text")
    match message.json():
        # (True is an int, to Python.)
        case {"customer": str(customer), "amount": int(amount)} if amount is not True and 0 < amount <= MOST:
            if customer.isprintable():
                return Order(identity, customer, amount)
    raise BadMessage('the body is not an order, such as {"customer": "ada", "amount": 10}')
