"""Who gets which message, what becomes of the others, and bindings that come back with their receiver."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pika
import pytest
from pika.exceptions import UnroutableError

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from common.management import Management
from tests.support.process import Finished, Script, run_script, wait_until

SEVERITIES = ("info", "warning", "error")


def emit(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"routing/emit_log_{script}.py", *arguments, environ=environ)


def test_each_receiver_gets_its_severities_and_nothing_else(environ: dict[str, str]) -> None:
    wanted = [("error",), ("info", "warning"), SEVERITIES, ("error", "error")]
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(Script("routing/receive_logs_direct.py", *severities, environ=environ))
            for severities in wanted
        ]
        for receiver in receivers:
            receiver.expect(r"Waiting for")
        for number, severity in enumerate(SEVERITIES * 2):
            done = emit("direct", severity, f"log {number}", environ=environ)
            assert (done.code, done.out) == (0, f" [x] Sent {severity}: log {number}\n")
        for receiver, severities in zip(receivers, wanted, strict=True):
            expected = [f" [x] {name}: log {n}" for n, name in enumerate(SEVERITIES * 2) if name in severities]
            receiver.expect(rf"{expected[-1][5:]}$")
            receiver.interrupt()
            assert receiver.wait() == 0
            assert receiver.lines[1:] == expected


def test_a_message_for_nobody_is_lost_returned_or_caught(environ: dict[str, str], settings: Settings) -> None:
    lost = emit("naive", "info", "lost", environ=environ)
    assert (lost.code, lost.out, lost.err) == (0, " [x] Sent info: lost\n", "")
    returned = emit("direct", "info", "returned", environ=environ)
    assert (returned.code, returned.out) == (ExitCode.UNROUTABLE, "")
    assert "nobody wants 'info'" in returned.err
    assert returned.err.count("\n") == 1

    with Script("routing/receive_unrouted.py", environ=environ) as receiver:
        receiver.expect("Waiting for what nobody wants")
        assert emit("naive", "info", "caught", environ=environ).code == 0
        receiver.expect(r"Nobody wanted info: caught$")
        receiver.terminate()
        assert receiver.wait() == 0
    # While it is away, what nobody wants is kept.
    assert emit("direct", "error", "kept", environ=environ).code == 0
    with connect("test", settings) as connection:
        channel = connection.channel()
        method, _, body = channel.basic_get("routing.unrouted", auto_ack=True)
        assert (method.exchange, method.routing_key, body) == ("routing.logs", "error", b"kept")
        assert channel.basic_get("routing.unrouted")[0] is None


def test_the_alternate_exchange_gets_only_what_no_binding_fits(environ: dict[str, str], settings: Settings) -> None:
    with (
        Script("routing/receive_unrouted.py", environ=environ) as unrouted,
        Script("routing/receive_logs_direct.py", "error", environ=environ) as errors,
    ):
        for receiver in (unrouted, errors):
            receiver.expect("Waiting")
        with connect("test", settings) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for number in range(300):
                channel.basic_publish("routing.logs", SEVERITIES[number % 3], b"%d" % number, mandatory=True)
        errors.expect(r"error: 299$")
        unrouted.expect(r"warning: 298$")
        for receiver in (unrouted, errors):
            receiver.interrupt()
            assert receiver.wait() == 0
        seen = Counter(int(line.rpartition(" ")[2]) for line in (*unrouted.lines[1:], *errors.lines[1:]))
        assert seen == Counter(range(300))
        assert len(errors.lines) == 101


@pytest.mark.parametrize("script", ["emit_log_direct.py", "emit_log_naive.py", "receive_logs_direct.py"])
def test_a_severity_that_does_not_exist_is_told_in_one_line(script: str, offline: dict[str, str]) -> None:
    done = run_script(f"routing/{script}", "fatal", environ=offline)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.count("\n") == 1
    for word in ("error: ", "'fatal'", *SEVERITIES):
        assert word in done.err


def test_bindings_come_back_after_a_broken_connection(environ: dict[str, str], management: Management) -> None:
    with Script("routing/receive_logs_direct.py", "info", "error", environ=environ) as receiver:
        receiver.expect("Waiting")
        found = wait_until(lambda: [c for c in management.connections() if c.label == "routing/receive_logs_direct.py"])
        management.close_connection(found[0].name)
        receiver.expect("connecting again")
        receiver.expect("Waiting for info, error")
        for severity in ("info", "error"):
            assert emit("direct", severity, "back", environ=environ).code == 0
            receiver.expect(rf"{severity}: back$")
        assert emit("direct", "warning", "back", environ=environ).code == ExitCode.UNROUTABLE
        receiver.interrupt()
        assert receiver.wait() == 0


def test_all_and_any_of_the_labels(environ: dict[str, str]) -> None:
    logs = {
        "north error": ("shop=north", "severity=error"),
        "north info": ("shop=north", "severity=info"),
        "south error": ("shop=south", "severity=error"),
        "south info": ("shop=south", "severity=info"),
        "north": ("shop=north",),
        "north error upstairs": ("shop=north", "severity=error", "floor=2"),
    }
    all_of = ["north error", "north error upstairs"]
    any_of = ["north error", "north info", "south error", "north", "north error upstairs"]
    with ExitStack() as stack:
        receivers = {
            match: stack.enter_context(
                Script("routing/receive_logs_headers.py", match, "shop=north", "severity=error", environ=environ)
            )
            for match in ("all", "any")
        }
        for receiver in receivers.values():
            receiver.expect("Waiting")
        for text, labels in logs.items():
            done = emit("headers", *(f"--label={label}" for label in labels), text, environ=environ)
            assert done.code == (0 if text in any_of else ExitCode.UNROUTABLE)
        assert emit("headers", "no labels", environ=environ).code == ExitCode.UNROUTABLE
        for match, expected in (("all", all_of), ("any", any_of)):
            receivers[match].expect(r"\[x\] north error upstairs$")
            receivers[match].interrupt()
            assert receivers[match].wait() == 0
            assert receivers[match].lines[1:] == [f" [x] {text}" for text in expected]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("shop", "NAME=VALUE"),
        ("=north", "NAME=VALUE"),
        ("x-shop=north", "begin with x-"),
        ("é" * 128 + "=north", "at most 255 bytes"),
        ("shop=" + "x" * 1001, "a value 1,000"),
        ("shop=\udcff", "not UTF-8"),
    ],
    ids=["no value", "no name", "not compared", "long name", "long value", "not UTF-8"],
)
def test_a_label_that_makes_no_sense_is_told_in_one_line(label: str, words: str, offline: dict[str, str]) -> None:
    for arguments in (("emit_log_headers.py", "--label", label), ("receive_logs_headers.py", "all", label)):
        done = run_script(f"routing/{arguments[0]}", *arguments[1:], environ=offline)
        assert (done.code, done.out) == (ExitCode.USAGE, "")
        assert done.err.count("\n") == 1
        assert words in done.err


def test_a_value_may_be_empty_and_hold_an_equals_sign(environ: dict[str, str]) -> None:
    with Script("routing/receive_logs_headers.py", "all", "sum=1+1=2", "note=", environ=environ) as receiver:
        receiver.expect("Waiting")
        assert emit("headers", "--label=sum=1+1=2", environ=environ).code == ExitCode.UNROUTABLE
        assert emit("headers", "--label=sum=1+1=2", "--label=note=", "right", environ=environ).code == 0
        receiver.expect("right$")


@pytest.mark.parametrize(
    ("binding", "headers", "fits"),
    [
        ({"x-match": "all", "floor": 1}, {"floor": 1}, True),
        ({"x-match": "all", "floor": 1}, {"floor": "1"}, False),
        ({"x-match": "any", "floor": 1}, {"floor": "1"}, False),
        ({"x-match": "all", "open": True}, {"open": True}, True),
        ({"x-match": "all", "x-floor": "1"}, {}, True),
        ({"x-match": "any", "x-floor": "1"}, {"x-floor": "1"}, False),
        ({"shop": "north", "floor": 1}, {"shop": "north"}, False),
    ],
    ids=["number", "number and text", "number and text, any", "boolean", "x- in all", "x- in any", "all by default"],
)
def test_what_the_readme_says_of_a_headers_exchange(
    settings: Settings, binding: dict[str, object], headers: dict[str, object], fits: bool
) -> None:
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.headers", arguments=binding)
        returned = False
        try:
            channel.basic_publish("amq.headers", "", b"x", pika.BasicProperties(headers=headers), mandatory=True)
        except UnroutableError:
            returned = True
        assert returned is not fits


def test_an_exchange_without_its_alternate_exchange_is_told(environ: dict[str, str], settings: Settings) -> None:
    with connect("test", settings) as connection:
        connection.channel().exchange_declare("routing.logs", "direct", durable=True)
    done = emit("direct", "info", "hello", environ=environ)
    assert done.code == ExitCode.DECLARED_OTHERWISE
    assert "'alternate-exchange'" in done.err
