"""The broker is killed in mid-run: every confirmed message is there, and every other one is named."""

from __future__ import annotations

import re

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.connection import connect
from common.errors import ExitCode
from tests.drills.brokers import Victim
from tests.drills.tally import SECTION
from tests.publisher_confirms.test_publisher_confirms import MEASURED, count, run
from tests.support.process import Script, wait_until
from tests.support.queues import take
from tests.support.report import Report
from tour.vhost import environment

EACH_KIND = {
    "quorum, persistent": 1,
    "quorum, transient": 1,
    "classic, persistent": 1,
    "classic, transient": 0,
}
"""What a broker that was killed has kept of messages that it had confirmed: the README's table."""


@pytest.mark.long
@pytest.mark.xdist_group("victim")
@pytest.mark.timeout(400)
def test_the_broker_is_killed(shared_victim: Victim, report: Report) -> None:
    broker = shared_victim
    with connect("test", broker.settings) as connection:
        channel = connection.channel()
        declare_one_of_each_kind(channel)
        # A quorum queue on a single node that is killed within the first second comes back empty, on 3.10 and on 4.3.
        # (Measured: always up to 0.75 s on 3.10, never from 1 s on.) The README says so.
        connection.sleep(3)
        confirm_one_of_each_kind(channel)
    environ = environment(broker.settings)
    assert run("one_at_a_time", "--count=1", environ=environ).code == 0
    with Script("publisher_confirms/asynchronous.py", "--count=1000000", environ=environ) as publisher:
        with connect("test", broker.settings) as connection:
            channel = connection.channel()
            channel.queue_purge(MEASURED)
            wait_until(lambda: count(channel) > 2000)
        broker.kill()
        assert publisher.wait() == ExitCode.NOT_CONFIRMED
    match = re.fullmatch(r"error: ([\d,]+) messages in doubt, from (\d+) on: .+", publisher.lines[-1])
    assert match, publisher.lines
    assert not any("Traceback" in line for line in publisher.lines)
    first = int(match[2])
    broker.start()
    with connect("test", broker.settings) as connection:
        channel = connection.channel()
        # For a moment, a quorum queue says that it is empty.
        wait_until(lambda: left_of_each_kind(channel) == EACH_KIND)
        arrived = {int(body.split()[1]) for _, body in take(channel, MEASURED, count(channel))}
    missing = set(range(1, first)) - arrived
    report.add(
        SECTION,
        f"the broker killed under asynchronous.py: {first - 1:,} confirmed, {len(missing)} of them missing, "
        f"{match[1]} in doubt, {len(arrived) - first + 1:,} of them or confirmed after them there",
    )
    assert missing == set()


def declare_one_of_each_kind(channel: BlockingChannel) -> None:
    for name in EACH_KIND:
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": name.split(", ")[0]})


def confirm_one_of_each_kind(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    for name in EACH_KIND:
        persistent = name.endswith("persistent")
        mode = pika.DeliveryMode.Persistent if persistent else pika.DeliveryMode.Transient
        channel.basic_publish("", name, b"x", pika.BasicProperties(delivery_mode=mode), mandatory=True)


def left_of_each_kind(channel: BlockingChannel) -> dict[str, int]:
    return {name: channel.queue_declare(name, passive=True).method.message_count for name in EACH_KIND}
