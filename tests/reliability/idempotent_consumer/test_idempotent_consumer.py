"""idempotent_consumer, where its README does not look: kills, a database that is locked or gone, bad messages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.support.postgresql import PostgreSql, Unavailable, postgresql
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.queues import put, take
from tour.vhost import environment

QUEUE = "idempotent_consumer.orders"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
FOLDER = "reliability/idempotent_consumer"
SEND = f"{FOLDER}/send_orders.py"
NAIVE = f"{FOLDER}/book_orders_naive.py"
BOOK = f"{FOLDER}/book_orders.py"
SHOW = f"{FOLDER}/show_accounts.py"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSql]:
    try:
        with postgresql() as server:
            yield server
    except Unavailable as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, settings: Settings) -> dict[str, str]:
    """The environment of a script, with an empty database of each kind."""
    if request.param == "sqlite":
        return environment(settings)
    return environment(replace(settings, database_url=request.getfixturevalue("server").new_database()))


def owed(environ: dict[str, str]) -> str:
    result = run_script(SHOW, environ=environ)
    assert (result.code, result.err) == (0, "")
    return result.out


@pytest.mark.parametrize("script", ["send_orders.py", "book_orders_naive.py", "book_orders.py", "show_accounts.py"])
@pytest.mark.parametrize("folder", [ROOT, ROOT / FOLDER], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    result = run_script(str((ROOT / FOLDER / script).relative_to(folder)), "--help", environ=offline, folder=folder)
    assert f"python {FOLDER}/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_killed_between_commit_and_acknowledgement(shop: dict[str, str], channel: BlockingChannel) -> None:
    assert run_script(SEND, "--count", "3", environ=shop).code == 0
    for number in (1, 2):
        with Script(BOOK, "--pause", "60", environ=shop) as consumer:
            consumer.expect(r"^ \[x\] Booked order-1" if number == 1 else r"^ \[ \] order-1 is booked already")
            consumer.kill()
            assert consumer.wait() < 0
    with Script(BOOK, environ=shop) as consumer:
        consumer.expect(r"^ \[x\] Booked order-3")
        consumer.terminate()
        assert consumer.wait() == 0
    assert owed(shop) == " [x] ada owes 30 euros\n"
    assert take(channel, QUEUE, 0) == take(channel, DEAD_LETTERS, 0) == []


def test_two_consumers_and_every_order_twice(shop: dict[str, str], channel: BlockingChannel) -> None:
    """Both copies of an order may be in work at the same moment, by two consumers; one books."""
    with Script(BOOK, environ=shop) as one, Script(BOOK, environ=shop) as two:
        one.expect("Waiting")
        two.expect("Waiting")
        bodies = [json.dumps({"customer": f"c{number}", "amount": 7}).encode() for number in range(5)]
        channel.confirm_delivery()
        for number in range(50):
            for _ in range(2):
                properties = BasicProperties(message_id=f"order-{number}", delivery_mode=2)
                channel.basic_publish("", QUEUE, bodies[number % 5], properties)
        wait_until(lambda: sum("order-" in line for script in (one, two) for line in script.lines) == 100)
        booked = [line for script in (one, two) for line in script.lines if "Booked" in line]
        for script in (one, two):
            script.terminate()
            assert script.wait() == 0
    assert len(booked) == 50
    assert owed(shop) == "".join(f" [x] c{number} owes 70 euros\n" for number in range(5))


NOT_ORDERS = [
    (None, b'{"customer":"ada","amount":10}', "no message_id"),
    ("order\n1", b'{"customer":"ada","amount":10}', "not a printable text"),
    ("order-1", b"", "empty"),
    ("order-1", b"\xff", "not UTF-8"),
    ("order-1", b"{", "not JSON"),
    ("order-1", b"[]", "not an order"),
    ("order-1", b'{"customer":"ada"}', "not an order"),
    ("order-1", b'{"customer":"ada","amount":true}', "not an order"),
    ("order-1", b'{"customer":"ada","amount":-10}', "not an order"),
    ("order-1", b'{"customer":"ada","amount":99999999999999999999999}', "not an order"),
    ("order-1", b'{"customer":"a\\u0000da","amount":10}', "not an order"),
]


@pytest.mark.parametrize("script", [BOOK, NAIVE])
def test_what_cannot_be_booked_goes_to_the_dead_letters(
    script: str, environ: dict[str, str], channel: BlockingChannel
) -> None:
    with Script(script, environ=environ) as consumer:
        consumer.expect("Waiting")
        for message_id, body, _why in NOT_ORDERS:
            put(channel, QUEUE, body, properties=BasicProperties(message_id=message_id))
        put(channel, QUEUE, b'{"customer":"bob","amount":1}', properties=BasicProperties(message_id="order-2"))
        wait_until(lambda: len(consumer.lines) == len(NOT_ORDERS) + 2)
        told = [line for line in consumer.lines if "rejected" in line]
        for line, (message_id, _body, why) in zip(told, NOT_ORDERS, strict=True):
            shown = (message_id or "(no id)").replace("\n", "\\n")
            assert line.startswith(f" [!] message {shown} rejected: ")
            assert why in line
        kept = take(channel, DEAD_LETTERS, len(NOT_ORDERS))
        assert [body for _properties, body in kept] == [body for _id, body, _why in NOT_ORDERS]
        consumer.terminate()
        assert consumer.wait() == 0
    assert owed(environ) == " [x] bob owes 1 euros\n"


@contextmanager
def locked(environ: dict[str, str]) -> Iterator[None]:
    """Somebody holds SQLite's lock."""
    with closing(sqlite3.connect(environ["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_a_locked_database_is_waited_for(environ: dict[str, str], channel: BlockingChannel) -> None:
    """Told once; nothing is rejected; when the lock is gone, the order is booked."""
    with Script(BOOK, environ=environ) as consumer:
        consumer.expect("Waiting")
        with locked(environ):
            assert run_script(SEND, environ=environ).code == 0
            consumer.expect(r"^ \[!\] the database sqlite:.* cannot be used: database is locked; trying again")
        consumer.expect(r"^ \[x\] Booked order-1")
        consumer.terminate()
        assert consumer.wait() == 0
        assert len(consumer.lines) == 3
    assert take(channel, QUEUE, 0) == take(channel, DEAD_LETTERS, 0) == []


def test_ctrl_c_while_it_waits_for_the_database(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(BOOK, environ=environ) as consumer:
        consumer.expect("Waiting")
        with locked(environ):
            assert run_script(SEND, environ=environ).code == 0
            consumer.expect("trying again")
            consumer.interrupt()
            assert consumer.wait() == 0
    [(properties, _body)] = take(channel, QUEUE, 1)
    assert properties.message_id == "order-1"


def test_a_file_that_was_deleted_gets_no_bookings(environ: dict[str, str], channel: BlockingChannel) -> None:
    """SQLite would go on with it, and the order would be booked nowhere."""
    with Script(BOOK, "--patience", "1", environ=environ) as consumer:
        consumer.expect("Waiting")
        for file in Path(environ["DATABASE_URL"].removeprefix("sqlite:///")).parent.iterdir():
            file.unlink()
        assert run_script(SEND, environ=environ).code == 0
        consumer.expect(r"^ \[!\] the database sqlite:.* cannot be used: no such table: .*; trying again")
        consumer.expect(r"^error: the database sqlite:.* cannot be used: no such table")
        assert consumer.wait() == ExitCode.UNAVAILABLE
    with Script(BOOK, environ=environ) as consumer:
        consumer.expect(r"^ \[x\] Booked order-1")
    assert take(channel, DEAD_LETTERS, 0) == []


def test_a_database_that_goes_away_and_comes_back(
    settings: Settings, server: PostgreSql, channel: BlockingChannel
) -> None:
    """The consumer waits for it; and ends in one line, with the message back on the queue, if it stays away."""
    url = server.new_database().replace("postgres@", "postgres:secret@")
    environ = environment(replace(settings, database_url=url))
    with Script(BOOK, "--patience", "8", environ=environ) as consumer:
        consumer.expect("Waiting")
        server.stop()
        assert run_script(SEND, environ=environ).code == 0
        consumer.expect(r"^ \[!\] the database postgresql://postgres@127\.0\.0\.1:\d+/\w+ cannot be used: .*; trying")
        server.start()
        consumer.expect(r"^ \[x\] Booked order-1")
        server.stop()
        assert run_script(SEND, "--first", "2", environ=environ).code == 0
        consumer.expect(r"^error: the database postgresql://postgres@.* cannot be used")
        assert consumer.wait() == ExitCode.UNAVAILABLE
        assert "secret" not in "".join(consumer.lines)
        assert "Traceback" not in "".join(consumer.lines)
    server.start()
    [(properties, _body)] = take(channel, QUEUE, 1)
    assert properties.message_id == "order-2"


@pytest.mark.parametrize("script", [BOOK, NAIVE, SHOW])
@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("nonsense:secret", ExitCode.CONFIG, "DATABASE_URL cannot be read"),
        ("postgresql://me:secret@host:port/shop", ExitCode.CONFIG, "DATABASE_URL cannot be read"),
        ("oracle://me:secret@host/shop", ExitCode.CONFIG, "use sqlite or postgresql"),
        ("sqlite://", ExitCode.CONFIG, "names no file"),
        ("sqlite:////dev/null/secret", ExitCode.UNAVAILABLE, "unable to open database file"),
        ("sqlite:////etc/hostname", ExitCode.UNAVAILABLE, "the database sqlite:////etc/hostname cannot be used"),
    ],
)
def test_a_database_url_that_is_of_no_use(
    script: str, url: str, code: ExitCode, words: str, offline: dict[str, str]
) -> None:
    result = run_script(script, environ=offline | {"DATABASE_URL": url})
    assert result.code == code
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert words in result.err
    assert "secret" not in result.err or url.startswith("sqlite")
