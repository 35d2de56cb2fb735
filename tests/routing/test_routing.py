"""routing: who gets which log, what becomes of the others, counted; and what a headers exchange compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.forked import ROOT
from tests.support.process import Finished, Script, run_script, wait_until
from tests.support.queues import take, take_all

SEVERITIES = ("info", "warning", "error")
SCRIPTS = sorted(path.name for path in (ROOT / "routing").glob("[er]*_*.py"))
UNROUTED = "routing.unrouted"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def emit(*arguments: str, environ: dict[str, str]) -> Finished:
    return run_script("routing/emit_log_direct.py", *arguments, environ=environ)


def emit_labelled(*arguments: str, environ: dict[str, str]) -> Finished:
    return run_script("routing/emit_log_headers.py", *arguments, environ=environ)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("folder", [ROOT, ROOT / "routing"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "routing" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python routing/{script}" in result.out
    assert (result.code, result.err) == (0, "")


# The direct exchange


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
            done = emit(severity, f"log {number}", environ=environ)
            assert (done.code, done.out) == (0, f" [x] Sent {severity}: log {number}\n")
        for receiver, severities in zip(receivers, wanted, strict=True):
            expected = [f" [x] {name}: log {n}" for n, name in enumerate(SEVERITIES * 2) if name in severities]
            receiver.expect(rf"{expected[-1][5:]}$")
            receiver.interrupt()
            assert receiver.wait() == 0
            assert receiver.lines[1:] == expected


@pytest.mark.parametrize("script", ["emit_log_direct.py", "receive_logs_direct.py"])
def test_a_severity_that_does_not_exist_gives_one_line(script: str, offline: dict[str, str]) -> None:
    done = run_script(f"routing/{script}", "fatal", environ=offline)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.count("\n") == 1
    for word in ("error: ", "'fatal'", *SEVERITIES):
        assert word in done.err


# A log that no queue wants


def test_it_is_lost_returned_or_kept(environ: dict[str, str], channel: BlockingChannel) -> None:
    lost = emit("info", "lost", environ=environ)
    assert (lost.code, lost.out, lost.err) == (0, " [x] Sent info: lost\n", "")
    returned = emit("--mandatory", "info", "returned", environ=environ)
    assert (returned.code, returned.out) == (ExitCode.UNROUTABLE, "")
    assert returned.err == "error: RabbitMQ returned the log: no queue is bound for 'info'\n"

    with Script("routing/receive_unrouted.py", environ=environ) as unrouted:
        unrouted.expect("Waiting for unrouted logs")
        assert emit("info", "kept", environ=environ).code == 0
        unrouted.expect(r"Unrouted info: kept$")
        unrouted.terminate()
        assert unrouted.wait() == 0
        assert len(unrouted.lines) == 2
    # While it is away, its queue keeps them, and mandatory has nothing to return.
    assert emit("--mandatory", "error", "kept meanwhile", environ=environ).code == 0
    # Stopped between showing a log and acknowledging it, the receiver would get that one again.
    *again, (properties, body) = take_all(channel, UNROUTED)
    assert [body for _properties, body in again] in ([], [b"kept"])
    assert (body, properties.delivery_mode) == (b"kept meanwhile", DeliveryMode.Persistent.value)


def test_the_alternate_exchange_gets_exactly_what_no_binding_matches(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    with (
        Script("routing/receive_unrouted.py", environ=environ) as unrouted,
        Script("routing/receive_logs_direct.py", "error", environ=environ) as errors,
    ):
        for receiver in (unrouted, errors):
            receiver.expect("Waiting")
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


def test_an_exchange_without_its_alternate_exchange_gives_one_line(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    channel.exchange_declare("routing.logs", "direct", durable=True)
    done = emit("info", "hello", environ=environ)
    assert done.code == ExitCode.DECLARED_OTHERWISE
    assert "'alternate-exchange'" in done.err


# How the receivers end, and what they show

RECEIVERS = [
    ("receive_logs_direct.py", ("info",), "routing.logs", "info", None),
    ("receive_logs_headers.py", ("all", "shop=north"), "routing.labelled_logs", "", {"shop": "north"}),
    ("receive_unrouted.py", (), "routing.logs", "info", None),
]
each_receiver = pytest.mark.parametrize(
    ("script", "arguments", "exchange", "key", "headers"), RECEIVERS, ids=[receiver[0] for receiver in RECEIVERS]
)


@each_receiver
def test_a_body_that_is_no_text_is_shown_and_ends_nobody(  # noqa: PLR0917
    environ: dict[str, str],
    channel: BlockingChannel,
    script: str,
    arguments: tuple[str, ...],
    exchange: str,
    key: str,
    headers: dict[str, str] | None,
) -> None:
    with Script(f"routing/{script}", *arguments, environ=environ) as receiver:
        receiver.expect("Waiting")
        for body in (b"\x80", b"", b"text"):
            channel.basic_publish(exchange, key, body, BasicProperties(headers=headers), mandatory=True)
        receiver.expect(r"text$")
        receiver.terminate()
        assert receiver.wait() == 0
        before = {"receive_logs_direct.py": "info: ", "receive_unrouted.py": "Unrouted info: "}.get(script, "")
        assert receiver.lines[1:] == [f" [x] {before}{text}" for text in ("\ufffd", "", "text")]


@each_receiver
def test_a_broken_connection_ends_a_receiver_with_one_line(  # noqa: PLR0917
    environ: dict[str, str],
    management: Management,
    channel: BlockingChannel,
    script: str,
    arguments: tuple[str, ...],
    exchange: str,
    key: str,
    headers: dict[str, str] | None,
) -> None:
    """After that, what its exclusive queue would get is lost; the durable queue of unrouted logs gets its own."""
    with Script(f"routing/{script}", *arguments, environ=environ) as receiver:
        receiver.expect("Waiting")
        found = wait_until(lambda: [c for c in management.connections() if c.label == f"routing/{script}"])
        management.close_connection(found[0].name)
        assert receiver.wait() == ExitCode.UNAVAILABLE
        assert len(receiver.lines) == 2
        assert receiver.lines[1].startswith("error: RabbitMQ at ")
    if script == "receive_unrouted.py":
        channel.basic_publish(exchange, key, b"kept", mandatory=True)
        assert [body for _properties, body in take(channel, UNROUTED, 1)] == [b"kept"]
    else:
        wait_until(lambda: management.queues() == [])
        with pytest.raises(UnroutableError):
            channel.basic_publish(exchange, key, b"lost", BasicProperties(headers=headers), mandatory=True)


# The headers exchange


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
            done = emit_labelled(*(f"--label={label}" for label in labels), text, environ=environ)
            assert done.code == (0 if text in any_of else ExitCode.UNROUTABLE)
        returned = emit_labelled("no labels", environ=environ)
        assert (returned.code, returned.out, returned.err.count("\n")) == (ExitCode.UNROUTABLE, "", 1)
        for match, expected in (("all", all_of), ("any", any_of)):
            receivers[match].expect(r"\[x\] north error upstairs$")
            receivers[match].interrupt()
            assert receivers[match].wait() == 0
            assert receivers[match].lines[1:] == [f" [x] {text}" for text in expected]


def test_labels_that_begin_with_x_are_compared_only_if_the_match_says_so(environ: dict[str, str]) -> None:
    logs = {"south": "x-region=south", "north": "x-region=north", "anywhere": "floor=1"}
    expected = {
        "all": ["south", "north", "anywhere"],
        "any": ["south", "north", "anywhere"],
        "all-with-x": ["north"],
        "any-with-x": ["south", "north", "anywhere"],
    }
    with ExitStack() as stack:
        receivers = {
            match: stack.enter_context(
                Script("routing/receive_logs_headers.py", match, "severity=error", "x-region=north", environ=environ)
            )
            for match in expected
        }
        for receiver in receivers.values():
            receiver.expect("Waiting")
        for text, label in logs.items():
            assert emit_labelled("--label=severity=error", f"--label={label}", text, environ=environ).code == 0
        # Only one receiver gets this one.
        assert emit_labelled("--label=x-region=north", "any severity", environ=environ).code == 0
        expected["any-with-x"].append("any severity")
        for match, texts in expected.items():
            receivers[match].expect(rf"\[x\] {texts[-1]}$")
            receivers[match].interrupt()
            assert receivers[match].wait() == 0
            assert receivers[match].lines[1:] == [f" [x] {text}" for text in texts], match


@pytest.mark.parametrize(
    "label",
    ["shop", "=north", "é" * 128 + "=north", "shop=" + "x" * 251, "shop=\udcff"],
    ids=["no value", "no name", "long name", "long value", "not UTF-8"],
)
def test_a_label_that_cannot_be_used_gives_one_line(label: str, offline: dict[str, str]) -> None:
    for arguments in (("emit_log_headers.py", "--label", label), ("receive_logs_headers.py", "all", label)):
        done = run_script(f"routing/{arguments[0]}", *arguments[1:], environ=offline)
        no_text = "\udcff" in label
        assert (done.code, done.out) == (ExitCode.DATA if no_text else ExitCode.USAGE, "")
        assert done.err.count("\n") == 1
        assert ("is not valid UTF-8" if no_text else "NAME=VALUE, at most 255 bytes") in done.err


def test_a_value_may_be_empty_and_hold_an_equals_sign(environ: dict[str, str]) -> None:
    with Script("routing/receive_logs_headers.py", "all", "sum=1+1=2", "note=", environ=environ) as receiver:
        receiver.expect("Waiting")
        assert emit_labelled("--label=sum=1+1=2", environ=environ).code == ExitCode.UNROUTABLE
        assert emit_labelled("--label=sum=1+1=2", "--label=note=", "right", environ=environ).code == 0
        receiver.expect("right$")


@pytest.mark.parametrize(
    ("binding", "headers", "matches"),
    [
        ({"x-match": "all", "floor": 1}, {"floor": 1}, True),
        ({"x-match": "all", "floor": 1}, {"floor": "1"}, False),
        ({"x-match": "any", "floor": 1}, {"floor": "1"}, False),
        ({"x-match": "all", "open": True}, {"open": True}, True),
        ({"shop": "north", "floor": 1}, {"shop": "north"}, False),
        # Without anything to compare, all of it is there, and nothing of it.
        ({"x-match": "all", "x-floor": "1"}, {}, True),
        ({"x-match": "all", "x-floor": "1"}, {"x-floor": "2"}, True),
        ({"x-match": "any", "x-floor": "1"}, {"x-floor": "1"}, False),
        ({"x-match": "all-with-x", "x-floor": "1"}, {"x-floor": "1"}, True),
        ({"x-match": "all-with-x", "x-floor": "1"}, {"x-floor": "2"}, False),
        ({"x-match": "any-with-x", "x-floor": "1", "shop": "north"}, {"x-floor": "1"}, True),
        ({"x-match": "any-with-x", "x-floor": "1", "shop": "north"}, {"x-floor": "2"}, False),
    ],
)
def test_what_the_readme_says_of_a_headers_exchange(
    channel: BlockingChannel, binding: dict[str, object], headers: dict[str, object], matches: bool
) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.headers", arguments=binding)
    returned = False
    try:
        channel.basic_publish("amq.headers", "", b"x", BasicProperties(headers=headers), mandatory=True)
    except UnroutableError:
        returned = True
    assert returned is not matches
