"""python -m broker queues."""

from __future__ import annotations

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.support.process import run_script


def test_it_counts_what_waits_at_this_moment(settings: Settings, environ: dict[str, str]) -> None:
    empty = run_script("-m", "broker", "queues", environ=environ)
    assert (empty.code, empty.out) == (0, "QUEUE  READY  CONSUMERS\n")
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.queue_declare("second", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare("first of all", durable=True)
        # Nobody but its own connection may look into this one.
        channel.queue_declare("third", exclusive=True)
        # The playground's own queue is not listed.
        channel.queue_declare("playground.firehose.1", exclusive=True)
        channel.confirm_delivery()
        for _ in range(1200):
            channel.basic_publish("", "second", b"x")
        channel.basic_consume("first of all", lambda *_: None)
        told = run_script("-m", "broker", "queues", environ=environ)
    assert told.code == 0
    assert told.out.splitlines() == [
        "QUEUE         READY  CONSUMERS",
        "first of all      0          1",
        "second        1,200          0",
        "third             0          0",
    ]


def test_without_a_broker_it_says_so(environ: dict[str, str]) -> None:
    nowhere = {**environ, "AMQP_URL": "amqp://localhost:1", "RABBITMQ_MANAGEMENT_URL": "http://localhost:1"}
    result = run_script("-m", "broker", "queues", environ=nowhere)
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert result.err.count("\n") == 1
