"""protocols/amqp_1_0, where its README does not look."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError

from common.config import Settings, Tls
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take
from tests.support.tls import Authority, TlsProxy
from tour.vhost import environment

pytest.importorskip(
    "rabbitmq_amqp_python_client",
    reason="the AMQP 1.0 client is not installed: protocols/amqp_1_0/requirements.txt needs a C compiler",
)

FOLDER = "protocols/amqp_1_0"
SEND = f"{FOLDER}/send.py"
RECEIVE = f"{FOLDER}/receive.py"
FIND = f"{FOLDER}/find.py"
QUEUE = "amqp_1_0.letters"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
JOURNAL = "amqp_1_0.journal"
LETTER = re.compile(r" \[x\] Received '(\d+): ")
LIMIT = 90.0
OLD = (4, 0)
SQL = (4, 2)


@pytest.fixture(autouse=True)
def _new_enough(request: pytest.FixtureRequest, broker_version: tuple[int, int, int]) -> None:
    if broker_version < OLD and "old_broker" not in request.node.name:
        pytest.skip("RabbitMQ's AMQP 1.0 client needs RabbitMQ 4.0 or later")


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def numbers(lines: list[str]) -> list[int]:
    return [int(match[1]) for line in lines if (match := LETTER.match(line))]


@pytest.mark.parametrize("name", ["send", "receive", "find", "send_amqp", "receive_amqp"])
def test_an_old_broker_is_told_in_one_line(
    name: str, environ: dict[str, str], broker_version: tuple[int, int, int]
) -> None:
    if broker_version >= OLD:
        pytest.skip("this broker is new enough")
    result = run_script(f"{FOLDER}/{name}.py", *(["x = 1"] if name == "find" else []), environ=environ, limit=LIMIT)
    assert (result.code, result.out) == (ExitCode.UNSUPPORTED, "")
    assert re.fullmatch(r"error: .* needs RabbitMQ 4\.\d or later; this broker is 3\.\S+\n", result.err)


def post(settings: Settings, count: int, failed: list[BaseException]) -> None:
    """Publish numbered letters with pika, each until the queue, which is small, has room for it."""
    try:
        with connect("test", settings) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for number in range(1, count + 1):
                while True:
                    try:
                        channel.basic_publish("", QUEUE, b"%d: Hello" % number, BasicProperties(delivery_mode=2))
                        break
                    except NackError:
                        connection.sleep(0.05)
    except BaseException as error:
        failed.append(error)


@pytest.mark.timeout(400)
def test_a_reader_that_is_killed_ten_times_misses_nothing(settings: Settings, environ: dict[str, str]) -> None:
    total = 1000
    failed: list[BaseException] = []
    # It has declared the queue when it is there.
    with Script(RECEIVE, environ=environ) as reader:
        reader.expect("Waiting", LIMIT)
    poster = threading.Thread(target=post, args=(settings, total, failed))
    poster.start()
    received: Counter[int] = Counter()
    deaths = 0
    while len(received) < total:
        with Script(RECEIVE, environ=environ) as reader:
            reader.expect("Waiting", LIMIT)
            if deaths < 10:
                wait_until(lambda: len(numbers(reader.lines)) > 20, LIMIT)
                reader.kill()
                deaths += 1
            else:
                wait_until(lambda: len({*received, *numbers(reader.lines)}) == total, LIMIT)
                reader.terminate()
            reader.wait(LIMIT)
            received.update(numbers(reader.lines))
    poster.join(LIMIT)
    assert failed == []
    assert deaths == 10
    assert set(received) == set(range(1, total + 1))
    # Twice is only what was in hand at a death: the client asks for ten at a time.
    assert received.total() <= total + 10 * 10


def test_a_reader_whose_connection_is_cut_goes_on(settings: Settings, channel: BlockingChannel) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        through = environment(replace(settings, addresses=(proxy.address,)))
        with Script(RECEIVE, environ=through) as reader:
            for number in range(1, 4):
                reader.expect("Waiting", LIMIT)
                put(channel, QUEUE, b"%d: Hello" % number)
                reader.expect(f"Received '{number}: Hello'", LIMIT)
                proxy.cut()
                reader.expect("lost.*connecting again", LIMIT)
            reader.expect("Waiting", LIMIT)
            reader.terminate()
            assert reader.wait(LIMIT) == 0
    # All were received; what was settled right before a cut may not have been heard, and is there once more.
    assert {body for _properties, body in take(channel, QUEUE, count(channel, QUEUE))} <= {
        b"1: Hello",
        b"2: Hello",
        b"3: Hello",
    }


def count(channel: BlockingChannel, queue: str) -> int:
    ready: int = channel.queue_declare(queue, passive=True).method.message_count
    return ready


def test_a_reader_whose_queue_is_deleted_declares_it_again(
    environ: dict[str, str], management: Management, channel: BlockingChannel
) -> None:
    with Script(RECEIVE, environ=environ) as reader:
        reader.expect("Waiting", LIMIT)
        management.delete_queue(QUEUE)
        reader.expect("connecting again", LIMIT)
        reader.expect("Waiting", LIMIT)
        put(channel, QUEUE, b"1: Hello")
        reader.expect("Received '1: Hello'", LIMIT)


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_reader_finishes_its_letter_and_leaves_the_rest(
    stop: object, environ: dict[str, str], channel: BlockingChannel
) -> None:
    assert run_script(SEND, "--count", "30", "Hello", environ=environ, limit=LIMIT).code == 0
    with Script(RECEIVE, "--seconds", "2", environ=environ) as reader:
        reader.expect("Received '1: Hello'", LIMIT)
        stop(reader)  # type: ignore[operator]
        assert reader.wait(LIMIT) == 0
        assert numbers(reader.lines) == [1]
    wait_until(lambda: count(channel, QUEUE) == 29, LIMIT)
    assert sorted(body for _properties, body in take(channel, QUEUE, 29)) == sorted(
        b"%d: Hello" % number for number in range(2, 31)
    )


def test_what_is_no_letter_is_among_the_dead_letters(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(RECEIVE, environ=environ) as reader:
        reader.expect("Waiting", LIMIT)
        put(channel, QUEUE, b"\xff\xfe")
        reader.expect("discarded: the body is not UTF-8", LIMIT)
        put(channel, QUEUE, b"")
        reader.expect("discarded: the message is empty", LIMIT)
        put(channel, QUEUE, b"1: Hello")
        reader.expect("Received '1: Hello'", LIMIT)
    assert [body for _properties, body in take(channel, DEAD_LETTERS, 2)] == [b"\xff\xfe", b""]


def test_each_outcome_has_a_code_of_its_own(environ: dict[str, str], channel: BlockingChannel) -> None:
    accepted = run_script(SEND, "Hello", environ=environ, limit=LIMIT)
    assert (accepted.code, accepted.out, accepted.err) == (0, " [x] Posted 'Hello'\n", "")
    released = run_script(SEND, "--key", "parcel", "Hello", environ=environ, limit=LIMIT)
    assert (released.code, released.out) == (ExitCode.UNROUTABLE, "")
    rejected = run_script(SEND, "--count", "120", "Hello", environ=environ, limit=LIMIT)
    assert rejected.code == ExitCode.NOT_CONFIRMED
    posted = re.fullmatch(r" \[x\] Posted (\d+) letters\n", rejected.out)
    assert posted
    told = re.match(r"error: rejected: (\d+) of 120, ", rejected.err)
    assert told
    assert int(posted[1]) + int(told[1]) == 120
    # Accepted is what is there; and what this queue has rejected, the journal has all the same.
    assert count(channel, QUEUE) == 1 + int(posted[1])
    channel.basic_qos(prefetch_count=100)
    journal = channel.consume(JOURNAL, arguments={"x-stream-offset": "first"}, inactivity_timeout=LIMIT)
    for method, _properties, _body in islice(journal, 121):
        assert method is not None
        channel.basic_ack(method.delivery_tag)


def test_what_pika_receives_has_all_properties(environ: dict[str, str], channel: BlockingChannel) -> None:
    result = run_script(SEND, "--from", "berta", "Grüße", environ=environ | {"PYTHONUTF8": "1"}, limit=LIMIT)
    assert result.code == 0
    ((properties, body),) = take(channel, QUEUE, 1)
    assert body == "Grüße".encode()
    assert (properties.delivery_mode, properties.content_type) == (2, "text/plain")
    assert properties.headers == {"sender": "berta"}
    assert properties.message_id


def test_rabbitmq_filters(environ: dict[str, str], broker_version: tuple[int, int, int]) -> None:
    if broker_version < SQL:
        pytest.skip("filters in SQL need RabbitMQ 4.2 or later")
    for sender, total in (("anna", 20), ("berta", 3), ("anna", 20), ("berta", 2)):
        done = run_script(SEND, "--count", str(total), "--from", sender, "Hello", environ=environ, limit=LIMIT)
        assert done.code == 0
    with Script(FIND, "sender = 'berta'", environ=environ) as finder:
        finder.expect("Looking", LIMIT)
        places = [int(finder.expect(r"\[x\] (\d+): '\d+: Hello' from berta", LIMIT)[1]) for _ in range(5)]
        finder.interrupt()
        assert finder.wait(LIMIT) == 0
        assert not any("anna" in line for line in finder.lines)
    assert places == [20, 21, 22, 43, 44]
    refused = run_script(FIND, "sender = = 'berta'", environ=environ, limit=LIMIT)
    assert (refused.code, refused.out) == (ExitCode.DATA, "")
    assert refused.err.count("\n") == 1


def test_a_queue_that_is_declared_otherwise(environ: dict[str, str], channel: BlockingChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "classic"})
    result = run_script(SEND, "Hello", environ=environ, limit=LIMIT)
    assert (result.code, result.out) == (ExitCode.DECLARED_OTHERWISE, "")
    assert f"queue '{QUEUE}' exists with another " in result.err
    assert result.err.count("\n") == 1


def test_tls(settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    with TlsProxy(settings.addresses[0], authority.issue("server", "DNS:localhost,IP:127.0.0.1")) as proxy:
        own = replace(settings, addresses=(replace(settings.addresses[0], host="localhost", port=proxy.port),))
        trusting = run_script(SEND, "Hello", environ=environment(replace(own, tls=Tls(authority.ca))), limit=LIMIT)
        assert (trusting.code, trusting.out, trusting.err) == (0, " [x] Posted 'Hello'\n", "")
        wary = run_script(SEND, "Hello", environ=environment(replace(own, tls=Tls())), limit=LIMIT)
        assert (wary.code, wary.out) == (ExitCode.PROTOCOL, "")
        assert "cannot be trusted" in wary.err
