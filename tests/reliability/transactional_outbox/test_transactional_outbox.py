"""transactional_outbox, where its README does not look: several relays, a full queue, a database that is locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.postgresql import Unavailable, postgresql
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.queues import put, take
from tour.vhost import environment

QUEUE = "transactional_outbox.received"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
FOLDER = "reliability/transactional_outbox"
SCRIPTS = ["place_order_naive.py", "place_order.py", "relay.py", "receive_orders.py", "show_orders.py"]
PLACE = f"{FOLDER}/place_order.py"
RELAY = f"{FOLDER}/relay.py"
RECEIVE = f"{FOLDER}/receive_orders.py"
SHOW = f"{FOLDER}/show_orders.py"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("folder", [ROOT, ROOT / FOLDER], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    result = run_script(str((ROOT / FOLDER / script).relative_to(folder)), "--help", environ=offline, folder=folder)
    assert f"python {FOLDER}/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_several_relays_share_the_outbox(settings: Settings, channel: BlockingChannel) -> None:
    """SKIP LOCKED: while one relay holds its batch, another sends the rest; nothing is sent twice."""
    try:
        with postgresql() as server:
            environ = environment(replace(settings, database_url=server.new_database()))
            assert run_script(PLACE, "--count", "150", environ=environ).code == 0
            with Script(RELAY, "--pause", "60", environ=environ) as holding:
                holding.expect(r"^ \[x\] Sent order-100,")
                with Script(RELAY, environ=environ) as other:
                    other.expect(r"^ \[x\] Sent order-101,")
                    other.expect(r"^ \[x\] Sent order-150,")
                    # It has looked again, and all that is there is in the other's hands.
                    assert run_script(PLACE, environ=environ).code == 0
                    other.expect(r"^ \[x\] Sent order-151,")
                    # It is sent first and then taken out.
                    wait_until(lambda: "in the outbox: 100, the oldest for " in run_script(SHOW, environ=environ).out)
                    other.terminate()
                    assert other.wait() == 0
            taken = take(channel, QUEUE, 151)
            assert len({properties.message_id for properties, _body in taken}) == 151
            # The first relay is dead: its batch is sent again, and by whoever comes.
            with Script(RELAY, environ=environ) as next_one:
                next_one.expect(r"^ \[x\] Sent order-100,")
            assert {properties.message_id for properties, _body in take(channel, QUEUE, 100)} == {
                f"order-{number}" for number in range(1, 101)
            }
    except Unavailable as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


def test_what_rabbitmq_does_not_take_stays_in_the_outbox(
    environ: dict[str, str], management: Management, channel: BlockingChannel
) -> None:
    management.set_policy("small", "received$", {"max-length": 10})
    with Script(RELAY, environ=environ) as relay:
        relay.expect("Waiting")
        # A quorum queue counts late, and takes in more than its limit; once it has refused one, it refuses all.
        with pytest.raises(NackError):
            put(channel, QUEUE, *[b'{"customer":"bob","amount":1}'] * 5_000)
        assert run_script(PLACE, "--count", "300", environ=environ).code == 0
        relay.expect(r"^ \[!\] .*was nacked: its queue may be full; it stays in the outbox$")
        assert not any("Sent" in line for line in relay.lines)
        assert "Messages in the outbox: 300," in run_script(SHOW, environ=environ).out
        with Script(RECEIVE, environ=environ) as receiver:
            wait_until(lambda: sum("Received order-" in line for line in receiver.lines) >= 300, 120)
            wait_until(lambda: sum("Sent order-" in line for line in relay.lines) == 300)
            assert len({line.split(":")[0] for line in receiver.lines if "Received order-" in line}) == 300
        relay.terminate()
        assert relay.wait() == 0
    assert "Messages in the outbox: 0" in run_script(SHOW, environ=environ).out


def test_a_locked_database(environ: dict[str, str], channel: BlockingChannel) -> None:
    """The relay waits for it; who places an order is told in one line."""
    with Script(RELAY, environ=environ) as relay:
        relay.expect("Waiting")
        with closing(
            sqlite3.connect(environ["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            result = run_script(PLACE, environ=environ)
            assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
            assert result.err.startswith("error: the database sqlite:")
            assert result.err.endswith("cannot be used: database is locked\n")
            relay.expect(r"^ \[!\] the database sqlite:.* cannot be used: database is locked; trying again")
        assert run_script(PLACE, environ=environ).code == 0
        relay.expect(r"^ \[x\] Sent order-1,")
    assert len(take(channel, QUEUE, 1)) == 1


def test_what_is_no_order_goes_to_the_dead_letters(environ: dict[str, str], channel: BlockingChannel) -> None:
    bodies = [b"", b"\xff", b"{", b"[]", b'{"customer": "ada"}']
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Waiting")
        put(channel, QUEUE, *bodies)
        put(channel, QUEUE, b'{"customer":"bob","amount":1}', properties=BasicProperties(message_id="order-2"))
        wait_until(lambda: len(receiver.lines) == 2 + len(bodies))
        assert any("Received order-2: 1 euros for bob" in line for line in receiver.lines)
        assert sum("message (no id) rejected: " in line for line in receiver.lines) == len(bodies)
        assert [body for _properties, body in take(channel, DEAD_LETTERS, len(bodies))] == bodies
        receiver.terminate()
        assert receiver.wait() == 0
