"""Orders from database to database while producer, relay and consumer die at random: both agree exactly at the end.

The scripts are those of transactional_outbox and idempotent_consumer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, MetaData, text

from common.config import Settings
from common.connection import connect
from extras.database import open_engine, transaction
from tests.drills.tally import SECTION
from tests.support.postgresql import Unavailable, postgresql
from tests.support.process import Script, run_script, wait_until
from tests.support.report import Report
from tour.vhost import environment

LIMIT = 400.0
CUSTOMERS = ["ada", "bob", "eve", "max"]
PLACE = "reliability/transactional_outbox/place_order.py"
RELAY = "reliability/transactional_outbox/relay.py"
SHOW_ORDERS = "reliability/transactional_outbox/show_orders.py"
SHOW_ACCOUNTS = "reliability/idempotent_consumer/show_accounts.py"
BOOK = "reliability/idempotent_consumer/book_orders.py"
EXCHANGE = "--exchange=transactional_outbox.orders"
QUEUES = ("idempotent_consumer.orders", "idempotent_consumer.orders.dead_letters")

ORDERED = "SELECT customer, SUM(amount) FROM transactional_outbox_orders GROUP BY customer"
BOOKED = "SELECT customer, total FROM idempotent_consumer_accounts"


class Role(threading.Thread):
    """One script, killed ``kills`` times after a random number of lines, and started again each time."""

    def __init__(
        self, environ: dict[str, str], kills: int, command: Callable[[], list[str]], share: Callable[[int], int]
    ) -> None:
        """``share(kills left)``: at most so many lines of work before the next death."""
        super().__init__()
        self.environ, self.kills, self.command, self.share = environ, kills, command, share
        self.done: list[str] = []
        """What the script said that it did, in all its lives."""
        self.killed = 0
        self.code: int | None = None
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while self.killed < self.kills and not self.stop.is_set():
                self.live(random.randint(1, max(1, self.share(self.kills - self.killed))))
            self.live(None)
        except BaseException as error:
            self.failure = error

    def live(self, lines: int | None) -> None:
        """Start it; kill it some milliseconds after it has done as many ``lines``, or (None) let it come to its end."""
        with Script(*self.command(), environ=self.environ) as script:
            if lines is None:
                threading.Thread(target=self.terminate_when_told, args=(script,), daemon=True).start()
            for line in script.follow():
                if "order-" in line:
                    self.done.append(line)
                    lines = None if lines is None else lines - 1
                if lines == 0:
                    time.sleep(random.uniform(0, 0.01))
                    script.kill()
                    self.killed += 1
                    lines = -1
            self.code = script.wait()

    def terminate_when_told(self, script: Script) -> None:
        self.stop.wait(LIMIT)
        script.terminate()


def drill(settings: Settings, orders: int, kills: int, name: str, report: Report) -> None:
    environ = environment(settings)
    for script in (SHOW_ORDERS, SHOW_ACCOUNTS):
        assert run_script(script, "--new", environ=environ).code == 0
    with connect("drill", settings) as connection:
        connection.channel().exchange_declare("transactional_outbox.orders", "fanout", durable=True)
    # The consumer's queue has to be bound before the first order is told: what comes earlier is not for it.
    with Script(BOOK, EXCHANGE, environ=environ) as first:
        first.expect("Waiting")
        first.terminate()
        assert first.wait() == 0
    engine = open_engine(settings, MetaData())

    def place() -> list[str]:
        left = orders - one(engine, "SELECT COUNT(*) FROM transactional_outbox_orders")
        return [PLACE, f"--count={left}", f"--customer={random.choice(CUSTOMERS)}"]

    def booked() -> bool:
        dead = [role for role in (producer, relay, consumer) if role.failure]
        assert not dead, dead[0].failure
        return one(engine, "SELECT COUNT(*) FROM idempotent_consumer_processed") >= orders

    began = time.monotonic()
    # So there is work left for the last of its lives, however long the others were.
    share = orders // kills
    producer = Role(
        environ,
        kills,
        place,
        lambda kills_left: (
            2 * (orders - one(engine, "SELECT COUNT(*) FROM transactional_outbox_orders")) // (kills_left + 2)
        ),
    )
    relay = Role(environ, kills, lambda: [RELAY], lambda _: share)
    consumer = Role(environ, kills, lambda: [BOOK, EXCHANGE], lambda _: share)
    roles = (producer, relay, consumer)
    for role in roles:
        role.start()
    try:
        wait_until(lambda: booked() and all(role.killed == kills for role in roles), limit=LIMIT, every=0.2)
        # Nothing is left to be sent, and nothing that could come twice is on its way.
        wait_until(lambda: one(engine, "SELECT COUNT(*) FROM transactional_outbox_messages") == 0)
    finally:
        for role in roles:
            role.stop.set()
        for role in roles:
            role.join(LIMIT)
        with transaction(engine) as connection:
            due, is_so = table(connection, ORDERED), table(connection, BOOKED)
        again = sum("already" in line for line in consumer.done)
        report.add(
            SECTION,
            f"outbox and idempotent consumer, {name}: {orders:,} orders, kills: producer {producer.killed}, relay "
            f"{relay.killed}, consumer {consumer.killed}; {sum(due.values()):,} euros ordered, {sum(is_so.values()):,} "
            f"booked; {len(relay.done) - orders:,} sent twice, {again:,} came twice; {time.monotonic() - began:.1f} s",
        )
    assert [role.failure for role in roles] == [None] * 3
    assert [role.code for role in roles] == [0] * 3
    assert is_so == due
    assert sum(due.values()) == 10 * orders
    assert one(engine, "SELECT COUNT(*) FROM idempotent_consumer_processed") == orders
    with connect("drill", settings) as connection:
        for queue in QUEUES:
            left = connection.channel().queue_declare(queue, passive=True).method.message_count
            assert left == 0, f"{left} messages in {queue}"


def one(engine: Engine, query: str) -> int:
    with transaction(engine) as connection:
        return int(connection.execute(text(query)).scalar_one())


def table(connection: Connection, query: str) -> dict[str, int]:
    return {str(name): int(total) for name, total in connection.execute(text(query))}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_5000_orders_and_60_kills(settings: Settings, report: Report) -> None:
    drill(settings, 5_000, 20, "SQLite", report)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_1000_orders_and_15_kills_on_postgresql(settings: Settings, report: Report) -> None:
    try:
        with postgresql() as server:
            drill(replace(settings, database_url=server.new_database()), 1_000, 5, "PostgreSQL", report)
    except Unavailable as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
