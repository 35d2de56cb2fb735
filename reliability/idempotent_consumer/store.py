"""The tables of this example, and the one change that must not be made twice."""

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, delete, select, text

TABLES = MetaData()
ACCOUNTS = Table(
    "idempotent_consumer_accounts",
    TABLES,
    Column("customer", String, primary_key=True),
    Column("total", Integer, nullable=False),
)
PROCESSED = Table("idempotent_consumer_processed", TABLES, Column("message_id", String, primary_key=True))


def book(connection: Connection, customer: str, amount: int) -> None:
    """Add to what the customer owes. (To add twice is not the same as to add once.)"""
    connection.execute(
        text(
            "INSERT INTO idempotent_consumer_accounts (customer, total) VALUES (:customer, :amount) "
            "ON CONFLICT (customer) DO UPDATE SET total = idempotent_consumer_accounts.total + :amount"
        ),
        {"customer": customer, "amount": amount},
    )


def is_new(connection: Connection, message_id: str) -> bool:
    """Note the message as processed; False if it was noted before. It counts when the transaction is committed."""
    noted = connection.execute(
        text("INSERT INTO idempotent_consumer_processed (message_id) VALUES (:id) ON CONFLICT (message_id) DO NOTHING"),
        {"id": message_id},
    )
    return noted.rowcount == 1


def totals(connection: Connection) -> dict[str, int]:
    """What each customer owes, by name."""
    rows = connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.customer))
    return {row.customer: row.total for row in rows}


def clear(connection: Connection) -> None:
    """Forget everything."""
    connection.execute(delete(ACCOUNTS))
    connection.execute(delete(PROCESSED))
