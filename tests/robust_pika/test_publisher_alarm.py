"""The Publisher while the broker is in alarm: a broker of the test's own, because an alarm stops everybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from robust_pika import DeclaringChannel, NotConfirmed, Publisher
from tests.drills.brokers import Victim

pytestmark = pytest.mark.xdist_group("victim")

QUEUE = "alarm.queue"
LIMIT = 60.0


@pytest.fixture
def broker(shared_victim: Victim) -> Victim:
    return shared_victim


@pytest.fixture
def alarm(broker: Victim) -> Iterator[Callable[[bool], None]]:
    """Raises and clears the memory alarm."""

    def switch(on: bool) -> None:
        broker.ctl("set_vm_memory_high_watermark", "0.000001" if on else "0.6")

    yield switch
    switch(False)


def declare(channel: DeclaringChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})


def eventually(true: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.02)


def test_publishing_waits_for_the_end_of_the_alarm_and_says_so(
    broker: Victim, alarm: Callable[[bool], None], logged: list[str]
) -> None:
    warnings = ""

    def warned(what: str) -> bool:
        nonlocal warnings
        warnings = "\n".join(logged)
        return what in warnings

    # The timeout is much shorter than the alarm: it must not count while the broker has a reason not to answer.
    with Publisher("alarm", broker.settings, declare=declare, timeout=1.0) as publisher:
        publisher.publish("", QUEUE, b"before").wait()
        alarm(True)
        first = publisher.publish("", QUEUE, b"during")
        eventually(lambda: warned("the broker is in alarm"))
        published = threading.Event()

        def work() -> None:
            publisher.publish("", QUEUE, b"during").wait()
            published.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert not published.wait(3)
        assert not first.done
        alarm(False)
        assert published.wait(LIMIT)
        thread.join(LIMIT)
        first.wait()
        eventually(lambda: warned("alarm is over"))
    assert warnings.count("in alarm") == 1


def test_an_alarm_that_lasts_is_an_error_for_each_message(broker: Victim, alarm: Callable[[bool], None]) -> None:
    with Publisher("alarm", replace(broker.settings, blocked_timeout=2.0), declare=declare) as publisher:
        publisher.publish("", QUEUE, b"before").wait()
        alarm(True)
        held = publisher.publish("", QUEUE, b"held")
        with pytest.raises(NotConfirmed):
            held.wait(LIMIT)
        alarm(False)
        # It is still of use.
        eventually(lambda: confirmed(publisher))


def confirmed(publisher: Publisher) -> bool:
    try:
        publisher.publish("", QUEUE, b"after").wait()
    except NotConfirmed:
        return False
    return True
