"""The tables of this example, and what is done with them."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
)

from common.messages import encode_json

# SQLite numbers the rows of a table by itself only if the column is an INTEGER.
NUMBER = BigInteger().with_variant(Integer, "sqlite")

TABLES = MetaData()
ORDERS = Table(
    "transactional_outbox_orders",
    TABLES,
    Column("number", NUMBER, primary_key=True),
    Column("customer", String, nullable=False),
    Column("amount", Integer, nullable=False),
)
OUTBOX = Table(
    "transactional_outbox_messages",
    TABLES,
    Column("number", NUMBER, primary_key=True),
    Column("message_id", String, nullable=False),
    Column("body", String, nullable=False),
    Column("placed_at", Float, nullable=False),
)


def add_order(connection: Connection, customer: str, amount: int) -> str:
    """Insert an order; return the id of the message about it."""
    added = connection.execute(insert(ORDERS).values(customer=customer, amount=amount))
    key = added.inserted_primary_key
    assert key is not None
    return f"order-{key[0]}"


def body(customer: str, amount: int) -> bytes:
    """What the message says."""
    return encode_json({"customer": customer, "amount": amount})


def add_message(connection: Connection, message_id: str, message: bytes) -> None:
    """Put a message into the outbox."""
    row = {"message_id": message_id, "body": message.decode(), "placed_at": time.time()}
    connection.execute(insert(OUTBOX).values(row))


def claim(connection: Connection, most: int) -> Sequence[Row[Any]]:
    """The oldest messages of the outbox, ``most`` at most, that no other relay has claimed."""
    # With PostgreSQL, the rows are ours until the transaction ends. (SQLAlchemy leaves the FOR UPDATE out for SQLite.)
    return connection.execute(
        select(OUTBOX).order_by(OUTBOX.c.number).limit(most).with_for_update(skip_locked=True)
    ).all()


def remove(connection: Connection, rows: Iterable[Row[Any]]) -> None:
    """Take these out of the outbox."""
    connection.execute(delete(OUTBOX).where(OUTBOX.c.number.in_([row.number for row in rows])))


def counts(connection: Connection) -> tuple[int, int, float]:
    """How many orders there are, how many messages wait in the outbox, and for how many seconds the oldest does."""
    orders = connection.execute(select(func.count()).select_from(ORDERS)).scalar_one()
    waiting, oldest = connection.execute(select(func.count(), func.min(OUTBOX.c.placed_at)).select_from(OUTBOX)).one()
    return orders, waiting, time.time() - oldest if waiting else 0.0


def clear(connection: Connection) -> None:
    """Forget everything; the next order is number 1 again."""
    TABLES.drop_all(connection)
    TABLES.create_all(connection)
