"""The senders of robust_clients, whose connection is cut in mid-run, and what counts the orders."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pika
import pytest

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.drills.brokers import Victim
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take_all
from tests.support.report import Report
from tour.vhost import environment

SECTION = "Robust clients"
ORDERS = "robust_clients.orders"
RECONNECTING = "robust_clients/sender_reconnecting.py"
SENDER = "robust_clients/sender.py"
COUNT = "robust_clients/count_orders.py"

each_sender = pytest.mark.parametrize("script", [RECONNECTING, SENDER], ids=lambda script: Path(script).stem)


def ids(settings: Settings) -> list[str]:
    """The ids of the orders in the queue, each as often as it is there. The queue is empty afterwards."""
    with connect("test", settings) as connection:
        return [str(properties.message_id) for properties, _body in take_all(connection.channel(), ORDERS)]


def told(script: Script) -> list[str]:
    return [line for line in script.lines if not line.startswith((" [*]", " [x]"))]


def confirmed(script: Script) -> int:
    """How many orders are confirmed; fails unless the last line says so, and the script ends."""
    found = script.expect(r"^ \[x\] (\d+) orders are confirmed$", limit=120)
    assert script.wait() == 0
    assert script.lines[-1] == found[0]
    return int(found[1])


@each_sender
def test_all_orders_are_there_in_order(script: str, environ: dict[str, str], settings: Settings) -> None:
    with Script(script, "--seconds", "1", environ=environ) as sender:
        total = confirmed(sender)
        assert sender.lines[:-1] == [" [*] Sending orders from 1 on"]
    with connect("test", settings) as connection:
        taken = take_all(connection.channel(), ORDERS)
    assert [(properties.message_id, properties.delivery_mode, body) for properties, body in taken] == [
        (f"order-{number}", pika.DeliveryMode.Persistent.value, b"%d" % number) for number in range(1, total + 1)
    ]


@each_sender
def test_five_cuts(script: str, settings: Settings, report: Report) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        environ = environment(replace(settings, addresses=(proxy.address,)))
        with Script(script, "--seconds", "12", environ=environ) as sender:
            before = -1
            for number in range(5):
                # Both say something each time that they have connected again.
                sender.expect("Sending orders" if not number or script == RECONNECTING else "connected again")
                wait_until(lambda: depth(settings) > before + 20)  # noqa: B023  called here only
                before = depth(settings)
                assert wait_until(proxy.cut) == 1
            total = confirmed(sender)
            assert sum("; connecting again" in line for line in told(sender)) == 5
    times = Counter(ids(settings))
    twice = sum(count - 1 for count in times.values())
    report.add(SECTION, f"{Path(script).stem}: 5 cuts, {total:,} orders; 0 missing, {twice} seen twice")
    assert times.keys() == {f"order-{number}" for number in range(1, total + 1)}
    if script == RECONNECTING:
        assert twice <= 5


def depth(settings: Settings) -> int:
    with connect("test", settings) as connection:
        channel = connection.channel()
        return int(channel.queue_declare(ORDERS, durable=True).method.message_count)


def test_a_full_queue_is_told_and_not_for_ever(environ: dict[str, str], management: Management) -> None:
    management.set_policy("full", "orders$", {"max-length": 0, "overflow": "reject-publish"})
    sent = run_script(RECONNECTING, environ=environ)
    assert sent.code == ExitCode.NOT_CONFIRMED
    assert sent.err.startswith("error: RabbitMQ at ")
    assert sent.err.count("\n") == 1


@each_sender
def test_without_a_broker_it_ends_with_one_line(script: str, offline: dict[str, str]) -> None:
    sent = run_script(script, environ=offline | {"RABBITMQ_CONNECT_TIMEOUT": "0.1"})
    assert (sent.code, sent.out) == (ExitCode.UNAVAILABLE, "")
    assert sent.err.startswith("error: nothing answers at ")
    assert sent.err.count("\n") == 1


@pytest.mark.long
@pytest.mark.xdist_group("victim")
@pytest.mark.timeout(400)
@each_sender
def test_the_broker_is_killed(script: str, shared_victim: Victim, report: Report) -> None:
    settings = shared_victim.settings
    assert depth(settings) == 0
    with Script(script, "--seconds", "30", environ=environment(settings)) as sender:
        wait_until(lambda: depth(settings) > 300)
        shared_victim.kill()
        shared_victim.start()
        total = confirmed(sender)
    times = Counter(ids(settings))
    twice = sum(count - 1 for count in times.values())
    report.add(SECTION, f"{Path(script).stem}: the broker killed, {total:,} orders; 0 missing, {twice} seen twice")
    assert times.keys() == {f"order-{number}" for number in range(1, total + 1)}


# Counting


def test_what_is_counted(environ: dict[str, str], settings: Settings) -> None:
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.queue_declare(ORDERS, durable=True)
        for number in (1, 2, 2, 4):
            put(channel, ORDERS, b"%d" % number, properties=pika.BasicProperties(message_id=f"order-{number}"))
    three = run_script(COUNT, "3", environ=environ)
    assert (three.code, three.err) == (0, "")
    assert three.out == " [x] 4 messages, 3 orders; twice: 1, missing: 0\n"
    nothing = run_script(COUNT, "3", environ=environ)
    assert nothing.code == ExitCode.NOT_CONFIRMED
    assert nothing.out == " [x] 0 messages, 0 orders; twice: 0, missing: 3\n"
    assert nothing.err == "error: 3 orders are missing\n"


# Cutting


def test_only_the_connections_of_this_lesson_are_cut(environ: dict[str, str], settings: Settings) -> None:
    with (
        connect("somebody else", settings) as other,
        Script("robust_clients/worker_reconnecting.py", environ=environ) as worker,
        Script("robust_clients/worker.py", environ=environ) as named,
    ):
        worker.expect("waits for tasks")
        named.expect("waits for tasks")
        cut = run_script("robust_clients/cut_connections.py", "worker.py", environ=environ)
        assert (cut.code, cut.err) == (0, "")
        assert cut.out == " [x] Closed the connection of robust_clients/worker.py\n"
        named.expect(r"closed the connection: 320 CONNECTION_FORCED.*; connecting again")
        named.expect("waits for tasks")
        # It waits until RabbitMQ shows one.
        both = run_script("robust_clients/cut_connections.py", environ=environ)
        assert set(both.out.splitlines()) <= {
            f" [x] Closed the connection of robust_clients/{name}.py" for name in ("worker", "worker_reconnecting")
        }
        assert re.search(r"worker_reconnecting\.py$", both.out, re.MULTILINE)
        worker.expect("connecting again")
        other.process_data_events()


def test_nothing_to_cut(environ: dict[str, str]) -> None:
    cut = run_script("robust_clients/cut_connections.py", environ=environ)
    assert (cut.code, cut.out) == (ExitCode.UNAVAILABLE, "")
    assert cut.err == "error: no script of this lesson is connected (to this virtual host)\n"
