"""Every script meets every usual failure: one line that says what and how to mend it, its own code, no password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from broker.ports import Ports
from common.config import Address, Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Finished, run_script, wait_until
from tests.support.process import Script as Running
from tests.support.report import Report
from tour.vhost import environment, fresh_vhost

PASSWORD = "not-for-your-eyes"
SECTION = "Every script meets every usual failure"
TIMEOUT = 60.0
"""Seconds in which a script must have ended."""
PATIENCE = 0.2
"""Seconds for which a script tries to reach a broker that is down; a busy one may need more."""
MIB = 1024 * 1024
SCRATCH = "SCRATCH"
"""In a script's options: a folder of its own, for this one run."""


@dataclass(frozen=True)
class Script:
    """A script with the arguments it needs, what it declares, and how a message gets to it (if it receives)."""

    path: str
    exchange: str = ""
    queue: str = ""
    options: tuple[str, ...] = ()
    key: str = ""
    headers: dict[str, str] | None = None
    dead_letters: str = ""


SEND = Script("send_and_receive/send.py", queue="send_and_receive.hello")
SEND_SAFELY = Script("send_and_receive/send_safely.py", queue="send_and_receive.hello")
RECEIVE = Script("send_and_receive/receive.py", queue="send_and_receive.hello")
NEW_TASK = Script("work_queue/new_task.py", queue="work_queue.tasks")
SEND_RUBBISH = Script("work_queue/send_rubbish.py", queue="work_queue.tasks")
WORKER = Script("work_queue/worker.py", queue="work_queue.tasks")
WORKER_AUTO_ACK = Script("work_queue/worker_auto_ack.py", queue="work_queue.tasks")
WORKER_REJECTING = Script("work_queue/worker_rejecting.py", queue="work_queue.tasks")
EMIT_LOG = Script("publish_subscribe/emit_log.py", exchange="publish_subscribe.logs")
RECEIVE_LOGS = Script("publish_subscribe/receive_logs.py", exchange="publish_subscribe.logs")
RECEIVE_LOGS_DURABLE = Script(
    "publish_subscribe/receive_logs_durable.py", exchange="publish_subscribe.logs", options=("me",)
)
EMIT_LOG_DIRECT = Script("routing/emit_log_direct.py", exchange="routing.logs", options=("info",))
RECEIVE_LOGS_DIRECT = Script("routing/receive_logs_direct.py", exchange="routing.logs", options=("info",))
RECEIVE_UNROUTED = Script("routing/receive_unrouted.py", exchange="routing.unrouted")
EMIT_LOG_HEADERS = Script("routing/emit_log_headers.py", exchange="routing.labelled_logs")
RECEIVE_LOGS_HEADERS = Script(
    "routing/receive_logs_headers.py",
    exchange="routing.labelled_logs",
    options=("all", "shop=north"),
)
EMIT_LOG_TOPIC = Script("topics/emit_log_topic.py", exchange="topics.logs", options=("north.till.info",))
RECEIVE_LOGS_TOPIC = Script("topics/receive_logs_topic.py", exchange="topics.logs", options=("#",))
RECEIVE_ALARMS = Script("topics/receive_alarms.py", exchange="topics.alarms")
TRY_PATTERN = Script("topics/try_pattern.py", options=("#", "till.error"))
ANSWERS = Script("publisher_confirms/answers.py")
OVERFLOW = Script("publisher_confirms/overflow.py", options=("drop-head",))
# Those that publish messages of their own making.
CONFIRMED = [
    *(
        Script(f"publisher_confirms/{name}.py", queue="publisher_confirms.measured", options=("--count=10",))
        for name in ("one_at_a_time", "in_batches", "asynchronous", "in_transactions", "publisher_confirms")
    ),
]

RPC_SERVER = Script("rpc/rpc_server.py", queue="rpc.requests")
RPC_CLIENT = Script("rpc/rpc_client.py", options=("7",))

ORDER = Script("reliability/dead_letters/order.py", queue="dead_letters.orders")
COOK = Script("reliability/dead_letters/cook.py", queue="dead_letters.orders")
REPORT_TEMPERATURES = Script(
    "reliability/dead_letters/report_temperatures.py", queue="dead_letters.temperatures", options=("180",)
)
SET_POLICY = Script("reliability/dead_letters/set_policy.py", queue="dead_letters.temperatures", options=("3",))
INSPECT = Script("reliability/dead_letters/inspect_dead_letters.py", queue="dead_letters.orders.dead_letters")
REPLAY = Script("reliability/dead_letters/replay_dead_letters.py", queue="dead_letters.orders.dead_letters")
COMPARE_STRATEGIES = Script("reliability/dead_letters/compare_strategies.py")

REQUEST_PAYMENT = Script("reliability/retries/request_payment.py", queue="retries.payments")
PAY = Script("reliability/retries/pay.py", queue="retries.payments")
SHOW_GIVEN_UP = Script("reliability/retries/show_given_up.py", queue="retries.payments")

REMIND = Script("reliability/delayed_messages/remind.py", queue="delayed_messages.reminders", options=("--in", "0.1"))
REMIND_NAIVE = Script("reliability/delayed_messages/remind_naive.py", queue="delayed_messages.reminders")
RECEIVE_REMINDERS = Script("reliability/delayed_messages/receive_reminders.py", queue="delayed_messages.reminders")
MEASURE_PRECISION = Script(
    "reliability/delayed_messages/measure_precision.py", queue="delayed_messages.reminders", options=("--count=10",)
)

OPEN_TICKET = Script("reliability/priorities/open_ticket.py", queue="priorities.tickets.quorum")
ANSWER_TICKETS = Script(
    "reliability/priorities/answer_tickets.py",
    queue="priorities.tickets.classic",
    dead_letters="priorities.tickets.dead_letters",
)
COMPARE_QUEUES = Script("reliability/priorities/compare_queues.py")
COMPARE_PREFETCH = Script("reliability/priorities/compare_prefetch.py")

SEND_ORDERS = Script("reliability/idempotent_consumer/send_orders.py", queue="idempotent_consumer.orders")
BOOK_ORDERS = Script("reliability/idempotent_consumer/book_orders.py", queue="idempotent_consumer.orders")
BOOK_ORDERS_NAIVE = Script("reliability/idempotent_consumer/book_orders_naive.py", queue="idempotent_consumer.orders")
PLACE_ORDER_NAIVE = Script(
    "reliability/transactional_outbox/place_order_naive.py", exchange="transactional_outbox.orders"
)
RELAY = Script("reliability/transactional_outbox/relay.py", exchange="transactional_outbox.orders")
RECEIVE_ORDERS = Script("reliability/transactional_outbox/receive_orders.py", exchange="transactional_outbox.orders")

SEND_MOVEMENTS = Script(
    "reliability/ordered_processing/send_movements.py", queue="ordered_processing.single", options=("single",)
)
BOOK = Script(
    "reliability/ordered_processing/book.py",
    queue="ordered_processing.single",
    options=("single", f"{SCRATCH}/bank.journal"),
)
# The other protocol's port is asked after AMQP's, so that what is wrong with the broker is told in the same way.
STREAMS = [
    *(
        Script(f"protocols/streams/{name}.py", queue="streams.sales", options=("north",))
        for name in ("record_sales", "check_sales", "record_sales_amqp")
    ),
    *(Script(f"protocols/streams/{name}.py", queue="streams.sales") for name in ("read_sales", "read_sales_amqp")),
    Script("protocols/streams/keep_recent.py", queue="streams.recent"),
    Script("protocols/streams/compare.py", queue="streams.compared.queue"),
]
# Those that say on RabbitMQ 3.10 that it is too old, before they declare anything.
NEW_STREAMS = [
    Script("protocols/streams/find_sales.py", options=("north",)),
    Script("protocols/streams/record_partitioned.py", options=("north",)),
    Script("protocols/streams/read_partitioned.py"),
]
DISPLAY_AMQP = Script("protocols/mqtt/display_amqp.py", queue="mqtt.readings")
STOMP_ORDER = Script("protocols/stomp/order.py", queue="stomp.orders", options=("Pizza",))
STOMP_COOK = Script("protocols/stomp/cook.py", queue="stomp.orders")
STOMP_ORDER_AMQP = Script("protocols/stomp/order_amqp.py", queue="stomp.orders")
STOMP_COOK_AMQP = Script("protocols/stomp/cook_amqp.py", queue="stomp.orders")
CORRECT_AMQP = Script("protocols/mqtt/correct_amqp.py", queue="mqtt.readings", options=("cellar", "1"))
ASYNCIO_NEW_TASK = Script("protocols/asyncio_client/new_task.py", queue="work_queue.tasks")
ASYNCIO_WORKER = Script("protocols/asyncio_client/worker.py", queue="work_queue.tasks")

MEASURE = Script("reliability/back_pressure/measure.py", queue="back_pressure.readings", options=("readings",))
STORE = Script("reliability/back_pressure/store.py", queue="back_pressure.readings", options=("readings",))
FLOOD = Script("reliability/back_pressure/flood.py", queue="back_pressure.newest", options=("--seconds=0.1",))
COMPARE_LIMITS = Script("reliability/back_pressure/compare_limits.py", queue="back_pressure.readings")
COMPARE_PREFETCHES = Script("reliability/back_pressure/compare_prefetch.py")
# Their client needs a C compiler. They too say on RabbitMQ 3.10 that it is too old, before they declare anything.
AMQP_1_0 = (
    [
        Script("protocols/amqp_1_0/find.py", options=("sender = 'anna'",)),
        *(Script(f"protocols/amqp_1_0/{name}.py") for name in ("send", "receive", "send_amqp", "receive_amqp")),
    ]
    if find_spec("rabbitmq_amqp_python_client")
    else []
)

SENDERS = [
    SEND,
    SEND_SAFELY,
    NEW_TASK,
    EMIT_LOG,
    EMIT_LOG_DIRECT,
    EMIT_LOG_HEADERS,
    EMIT_LOG_TOPIC,
    ORDER,
    REQUEST_PAYMENT,
    REMIND,
    REMIND_NAIVE,
    OPEN_TICKET,
    STOMP_ORDER_AMQP,
    ASYNCIO_NEW_TASK,
]
RECEIVERS = [
    COOK,
    PAY,
    RECEIVE_REMINDERS,
    ANSWER_TICKETS,
    STOMP_COOK_AMQP,
]
# They declare, but no text is given to them, and no message of a foreign client gets to them; or their messages have a
# form of their own, and what is wrong with one is tested beside them.
OTHERS = [
    ASYNCIO_WORKER,
    RECEIVE,
    SEND_RUBBISH,
    WORKER,
    WORKER_AUTO_ACK,
    WORKER_REJECTING,
    RECEIVE_LOGS,
    RECEIVE_LOGS_DURABLE,
    RECEIVE_LOGS_DIRECT,
    RECEIVE_UNROUTED,
    RECEIVE_LOGS_HEADERS,
    RECEIVE_LOGS_TOPIC,
    RECEIVE_ALARMS,
    *CONFIRMED,
    REPORT_TEMPERATURES,
    SET_POLICY,
    INSPECT,
    REPLAY,
    SHOW_GIVEN_UP,
    MEASURE_PRECISION,
    SEND_ORDERS,
    BOOK_ORDERS,
    BOOK_ORDERS_NAIVE,
    PLACE_ORDER_NAIVE,
    RELAY,
    RECEIVE_ORDERS,
    SEND_MOVEMENTS,
    BOOK,
    MEASURE,
    STORE,
    FLOOD,
    COMPARE_LIMITS,
    *STREAMS,
]
SCRIPTS = [
    *SENDERS,
    *RECEIVERS,
    *OTHERS,
    *NEW_STREAMS,
    *AMQP_1_0,
    TRY_PATTERN,
    ANSWERS,
    OVERFLOW,
    COMPARE_STRATEGIES,
    COMPARE_QUEUES,
    COMPARE_PREFETCH,
    COMPARE_PREFETCHES,
    # Its queue is auto-delete anyway: tests/rpc declares it otherwise.
    RPC_SERVER,
    RPC_CLIENT,
    DISPLAY_AMQP,
    CORRECT_AMQP,
    STOMP_ORDER,
    STOMP_COOK,
]

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(Path(script.path).with_suffix("")))
each_declaring_script = pytest.mark.parametrize(
    "script", [*SENDERS, *RECEIVERS, *OTHERS], ids=lambda script: str(Path(script.path).with_suffix(""))
)
each_sender = pytest.mark.parametrize("script", SENDERS, ids=lambda script: str(Path(script.path).with_suffix("")))
each_receiver = pytest.mark.parametrize(
    "script",
    RECEIVERS,
    ids=lambda script: str(Path(script.path).with_suffix("")),
)


def run(
    script: Script, settings: Settings, *arguments: str, stdin: bytes = b"", patience: float = TIMEOUT / 2
) -> Finished:
    """Run a script that is expected to end by itself; it tries for ``patience`` seconds to reach the broker."""
    environ = environment(settings) | {"RABBITMQ_CONNECT_TIMEOUT": f"{patience:g}"}
    with TemporaryDirectory() as scratch:
        options = [option.replace(SCRATCH, scratch) for option in script.options]
        return run_script(script.path, *options, *arguments, environ=environ, stdin=stdin, limit=TIMEOUT)


def told(
    report: Report,
    script: Script,
    failure: str,
    result: Finished,
    code: ExitCode,
    *words: str,
) -> None:
    """Add a row to the table; then see that the failure was told in one line, in these words, with this code."""
    lines = (result.out + result.err).splitlines()
    report.add(SECTION, f"{Path(script.path).name:<23} {failure:<20} {result.code:>3}  {' / '.join(lines)[:300]}")
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert result.out == ""
    for word in words:
        assert word in lines[0]
    assert PASSWORD not in lines[0]
    assert result.code == code


@pytest.fixture(scope="module")
def stranger(configured: Settings) -> Iterator[Settings]:
    """A user whose password can be told from everything else, with a virtual host in which nothing is declared."""
    with (
        fresh_vhost(configured, "test.stranger") as settings,
        Management(settings, timeout=TIMEOUT) as management,
    ):
        name = f"user.{settings.vhost}"
        management.create_user(name, PASSWORD)
        try:
            management.set_permissions(name, settings.vhost)
            yield replace(settings, user=name, password=PASSWORD)
        finally:
            management.delete_user(name)


@pytest.fixture
def user(settings: Settings, management: Management, stranger: Settings) -> Settings:
    """The same user, in the virtual host of this test."""
    management.set_permissions(stranger.user, settings.vhost)
    return replace(settings, user=stranger.user, password=stranger.password)


@pytest.fixture(scope="module")
def refusal(stranger: Settings) -> str:
    """What RabbitMQ 4 says to a foreign client that publishes 20 MiB."""
    with connect("a foreign client", stranger) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(ChannelClosedByBroker) as refused:
            channel.basic_publish("", "", BODIES["body of 20 MiB"])
    return refused.value.reply_text


@each_script
def test_broker_down(script: Script, stranger: Settings, report: Report) -> None:
    nobody = Address("127.0.0.1", Ports.free().amqp)
    result = run(script, replace(stranger, addresses=(nobody,)), patience=PATIENCE)
    told(report, script, "broker down", result, ExitCode.UNAVAILABLE, str(nobody), "make broker")


@each_script
def test_wrong_password(script: Script, stranger: Settings, report: Report) -> None:
    result = run(script, replace(stranger, password=f"{PASSWORD} either"))
    told(report, script, "wrong password", result, ExitCode.ACCESS, stranger.user, "RABBITMQ_PASSWORD")


@each_script
def test_missing_virtual_host(script: Script, stranger: Settings, report: Report) -> None:
    result = run(script, replace(stranger, vhost="nowhere"))
    told(report, script, "missing vhost", result, ExitCode.NO_VHOST, "'nowhere'", "RABBITMQ_VHOST")


@each_declaring_script
def test_declared_otherwise(script: Script, user: Settings, report: Report) -> None:
    with connect("test", user) as connection:
        if script.exchange:
            # For the one that is of this type too, it is auto_delete that differs.
            connection.channel().exchange_declare(
                script.exchange, exchange_type="fanout", durable=True, auto_delete=True
            )
        else:
            # For a plain one, too, it is auto_delete that differs.
            connection.channel().queue_declare(script.queue, durable=True, auto_delete=True)
    result = run(script, user)
    mend = f"'{script.exchange or script.queue}'", "delete it"
    told(report, script, "declared otherwise", result, ExitCode.DECLARED_OTHERWISE, *mend)


@each_script
def test_unknown_option(script: Script, stranger: Settings, report: Report) -> None:
    result = run(script, stranger, "--colour")
    told(report, script, "unknown option", result, ExitCode.USAGE, "--colour", "--help")


@each_sender
def test_empty_body_to_send(script: Script, stranger: Settings, report: Report) -> None:
    told(report, script, "empty body", run(script, stranger, ""), ExitCode.DATA, "empty", "at least one character")
    assert run(script, stranger, "-").code == ExitCode.DATA


@each_sender
def test_body_to_send_that_is_not_utf8(script: Script, stranger: Settings, report: Report) -> None:
    result = run(script, stranger, "-", stdin=b"\xff\xfe")
    told(report, script, "body not UTF-8", result, ExitCode.DATA, "not UTF-8", "send text in UTF-8")


@each_sender
def test_body_to_send_of_20_mib(script: Script, stranger: Settings, report: Report) -> None:
    result = run(script, stranger, "-", stdin=b"x" * 20 * MIB)
    told(report, script, "body of 20 MiB", result, ExitCode.DATA, "16,777,216", "store large data elsewhere")


BODIES = {
    "empty body": b"",
    "body not UTF-8": b"\xff\xfe",
    "body of 20 MiB": b"x" * 20 * MIB,
}


@each_receiver
@pytest.mark.parametrize("failure", BODIES)
def test_received_body(
    request: pytest.FixtureRequest,
    script: Script,
    failure: str,
    broker_version: tuple[int, int, int],
    report: Report,
) -> None:
    """What a foreign client may send: told in one line, kept among the dead letters, and the next one is received."""
    body = BODIES[failure]
    row = f"{Path(script.path).name:<23} {failure:<20}"
    if len(body) > 16 * MIB and broker_version >= (4, 0):
        refusal = request.getfixturevalue("refusal")
        assert "larger than" in refusal
        report.add(SECTION, f"{row}   -  never meets it, RabbitMQ refuses it: {refusal}")
        return
    user = request.getfixturevalue("user")
    with Running(script.path, *script.options, environ=environment(user)) as process:
        process.expect("Waiting")
        with connect("a foreign client", user) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(delivery_mode=2, headers=script.headers)
            for content in (body, b"the next one"):
                # Without an exchange of its own, a message goes straight to the queue.
                channel.basic_publish(script.exchange, script.key or script.queue, content, properties, mandatory=True)
            # Which of the two comes first is left open: they are printed by different threads.
            wait_until(lambda: len(process.lines) >= 3)
            kept = dead_letters(channel, script.dead_letters or f"{script.queue or script.exchange}.dead_letters")
        process.terminate()
        code = process.wait()
    line, following = sorted(process.lines[1:3])
    rest = process.lines[3:]
    report.add(SECTION, f"{row} {code:>3}  {line}; to the dead letters, next one received")
    assert re.fullmatch(r" \[!\] message \(no id\) rejected: .*(empty|not UTF-8|more than the 16,777,216).*", line)
    assert "the next one" in following
    assert kept == [body]
    assert code == 0
    assert not any("rejected" in line or "Traceback" in line for line in rest)


def dead_letters(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str) -> list[bytes]:
    """What is in the queue: all there is once the first has come, which may take a moment."""
    for method, _properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=TIMEOUT):
        assert method is not None, f"nothing in {queue} after {TIMEOUT} s"
        bodies = [body]
        break
    channel.cancel()
    while (got := channel.basic_get(queue, auto_ack=True))[0]:
        bodies.append(got[2])
    return bodies
