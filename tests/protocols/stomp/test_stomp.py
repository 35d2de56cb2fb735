"""protocols/stomp, where its README does not look: nothing lost through kills and cuts, what survives the translation,
and what goes wrong told in one line."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from broker.ports import Ports
from common.config import Address, Settings, Tls
from common.connection import connect
from common.errors import ExitCode
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take
from tests.support.tls import Authority, TlsProxy
from tour.vhost import environment

pytest.importorskip("stomp", reason="stomp.py is not installed: protocols/stomp/requirements.txt")

ORDER = "protocols/stomp/order.py"
COOK = "protocols/stomp/cook.py"
ORDER_AMQP = "protocols/stomp/order_amqp.py"
COOK_AMQP = "protocols/stomp/cook_amqp.py"
SCREEN = "protocols/stomp/show_screen.py"
QUEUE = "stomp.orders"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
COOKING = re.compile(r" \[x\] Cooking '(\d+): ")
ORDERS = 1000
HELD = 10
"""Orders that a cook has at once, at most."""


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def numbers(lines: list[str]) -> list[int]:
    return [int(match[1]) for line in lines if (match := COOKING.match(line))]


def some_more(cook: Script, count: int) -> bool:
    return len(numbers(cook.lines)) > count


def empty(channel: BlockingChannel) -> bool:
    waiting: int = channel.queue_declare(QUEUE, passive=True).method.message_count
    return waiting == 0


def declared(environ: dict[str, str]) -> None:
    """The queue is there, and nothing is in it."""
    with Script(COOK, environ=environ) as cook:
        cook.expect("Waiting")


@pytest.mark.parametrize("script", [ORDER, COOK, ORDER_AMQP, COOK_AMQP, SCREEN])
def test_help_says_how_it_is_called(script: str, offline: dict[str, str]) -> None:
    result = run_script(script, "--help", environ=offline)
    assert f"python {script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_a_cook_that_is_killed_and_comes_back_misses_nothing(environ: dict[str, str], channel: BlockingChannel) -> None:
    """1,000 orders; the cook is killed in the middle of them, three times."""
    assert run_script(ORDER, "--count", str(ORDERS), "Pizza", environ=environ).code == 0
    cooked: list[int] = []
    for _ in range(3):
        with Script(COOK, "--seconds", "0", environ=environ) as cook:
            wait_until(partial(some_more, cook, 100))
            cook.kill()
            cook.wait()
            cooked += numbers(cook.lines)
    with Script(COOK, "--seconds", "0", environ=environ) as cook:
        wait_until(lambda: len({*cooked, *numbers(cook.lines)}) == ORDERS)
        cook.interrupt()
        assert cook.wait() == 0
        cooked += numbers(cook.lines)
    assert set(cooked) == set(range(1, ORDERS + 1))
    # Twice is at most what was in hand at a death, and what was acknowledged but had not arrived.
    assert len(cooked) - ORDERS <= 3 * 2 * HELD
    assert take(channel, QUEUE, 0) == []
    assert take(channel, DEAD_LETTERS, 0) == []


def test_a_cook_whose_connection_is_cut_comes_back(
    settings: Settings, environ: dict[str, str], channel: BlockingChannel
) -> None:
    assert run_script(ORDER, "--count", "300", "Pizza", environ=environ).code == 0
    with Proxy(Address("127.0.0.1", settings.stomp_port)) as proxy:
        through = environ | {"RABBITMQ_STOMP_PORT": str(proxy.address.port)}
        with Script(COOK, "--seconds", "0.01", environ=through) as cook:
            for cut in range(3):
                wait_until(partial(some_more, cook, 30 * (cut + 1)))
                proxy.cut()
                cook.expect("connection is lost; connecting again")
                cook.expect("Waiting")
            wait_until(lambda: set(numbers(cook.lines)) == set(range(1, 301)))
            wait_until(lambda: empty(channel))
            cook.terminate()
            assert cook.wait() == 0


def test_a_deleted_queue_is_declared_again(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(COOK, "--seconds", "0", environ=environ) as cook:
        cook.expect("Waiting")
        channel.queue_delete(QUEUE)
        cook.expect("ended the subscription.*connecting again")
        cook.expect("Waiting")
        assert run_script(ORDER, "Pizza", environ=environ).code == 0
        cook.expect("Cooking 'Pizza'")


def test_together_is_all_or_none(environ: dict[str, str], channel: BlockingChannel) -> None:
    declared(environ)
    for bad in ("", "\udcff"):
        result = run_script(ORDER, "--together", "Soup", bad, "Cake", environ=environ)
        assert result.code == ExitCode.DATA
    assert take(channel, QUEUE, 0) == []
    assert run_script(ORDER, "--together", "Soup", "Pizza", "Cake", environ=environ).code == 0
    assert [body for _properties, body in take(channel, QUEUE, 3)] == [b"Soup", b"Pizza", b"Cake"]


@pytest.mark.long
def test_what_was_sent_together_is_there(environ: dict[str, str], channel: BlockingChannel) -> None:
    """The receipt of a COMMIT comes before the messages are safe: who leaves then can lose the last of them."""
    declared(environ)
    for _ in range(100):
        assert run_script(ORDER, "--together", "Soup", "Pizza", "Cake", environ=environ).code == 0
    assert len(take(channel, QUEUE, 300)) == 300


def test_what_is_ready_is_announced(environ: dict[str, str], channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", "stomp.ready")
    with Script(COOK, "--seconds", "0", environ=environ) as cook:
        cook.expect("Waiting")
        assert run_script(ORDER_AMQP, "--table", "7", "Crème brûlée", environ=environ).code == 0
        cook.expect("Cooking 'Crème brûlée' for table 7")
        [(properties, body)] = take(channel, queue, 1)
    assert body.decode() == "Crème brûlée for table 7 is ready"
    assert properties.content_type == "text/plain"


def test_from_stomp_to_amqp(environ: dict[str, str], channel: BlockingChannel) -> None:
    declared(environ)
    assert run_script(ORDER, "--table", "7", "Käse", environ=environ).code == 0
    [(properties, body)] = take(channel, QUEUE, 1)
    assert body.decode() == "Käse"
    assert (properties.content_type, properties.delivery_mode) == ("text/plain", 2)
    assert properties.headers["table"] == "7"
    assert re.fullmatch(r"[0-9a-f-]{36}", properties.message_id)


def test_what_is_no_order_goes_to_the_dead_letters(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(COOK, "--seconds", "0", environ=environ) as cook:
        cook.expect("Waiting")
        put(channel, QUEUE, b"", b"\xff\xfe", b"\x00\x01\xff")
        put(channel, QUEUE, b"picture", properties=pika.BasicProperties(content_type="image/png"))
        for _ in range(4):
            cook.expect(r"\[!\] rejected: ")
        # A zero byte does not end a body, a header may be missing, and what looks like a frame is none.
        put(channel, QUEUE, b"Pi\x00zza", b"MESSAGE\n\n\x00")
        cook.expect(r"Cooking 'Pi\\x00zza' for table unknown")
        cook.expect("Cooking 'MESSAGE")
        cook.interrupt()
        assert cook.wait() == 0
    dead = [body for _properties, body in take(channel, DEAD_LETTERS, 4)]
    assert dead == [b"", b"\xff\xfe", b"\x00\x01\xff", b"picture"]
    assert take(channel, QUEUE, 0) == []


def told(code: ExitCode, *words: str, environ: dict[str, str], arguments: tuple[str, ...] = (ORDER, "Pizza")) -> None:
    """See that it fails with this code and one line in these words."""
    result = run_script(*arguments, environ=environ, limit=60)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err


def test_nothing_at_the_port(environ: dict[str, str]) -> None:
    """So it is where the plugin is not enabled."""
    port = str(Ports.free().stomp)
    words = (f":{port}, the STOMP port", "rabbitmq-plugins enable rabbitmq_stomp", "make broker")
    told(ExitCode.UNAVAILABLE, *words, environ=environ | {"RABBITMQ_STOMP_PORT": port})


def test_another_protocol_at_the_port(settings: Settings, environ: dict[str, str]) -> None:
    port = str(settings.addresses[0].port)
    told(ExitCode.PROTOCOL, port, "RABBITMQ_STOMP_PORT", environ=environ | {"RABBITMQ_STOMP_PORT": port})


def test_a_port_that_accepts_and_says_nothing(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        told(
            ExitCode.PROTOCOL,
            port,
            "does not speak STOMP",
            environ=environ | {"RABBITMQ_STOMP_PORT": port, "RABBITMQ_CONNECT_TIMEOUT": "2"},
        )


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("/exchange/nowhere/x", "no exchange 'nowhere'"),
        ("/nonsense", "'/nonsense' is not a valid destination"),
    ],
)
def test_a_destination_that_does_not_exist(destination: str, words: str, environ: dict[str, str]) -> None:
    told(ExitCode.PROTOCOL, words, environ=environ, arguments=(ORDER, "--destination", destination, "Pizza"))


def test_a_queue_to_subscribe_to_that_does_not_exist(environ: dict[str, str]) -> None:
    arguments = (COOK, "--destination", "/amq/queue/nowhere")
    told(ExitCode.PROTOCOL, "no queue 'nowhere'", environ=environ, arguments=arguments)


def test_a_body_that_is_too_large(environ: dict[str, str]) -> None:
    """A command line cannot carry it; the one that reads standard input can."""
    result = run_script(ORDER_AMQP, "-", environ=environ, stdin=b"x" * 20_000_000)
    assert result.code == ExitCode.DATA
    assert "16,777,216" in result.err


def test_tls(settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, other = authority.issue("server", "IP:127.0.0.1"), authority.issue("other", "DNS:rabbit.invalid")
    stomp = Address(settings.addresses[0].host, settings.stomp_port)
    with (
        TlsProxy(settings.addresses[0], server) as amqp_tls,
        TlsProxy(stomp, server) as stomp_tls,
        TlsProxy(stomp, other) as wrong_name,
    ):
        addresses = (Address("127.0.0.1", amqp_tls.port),)
        own = replace(settings, addresses=addresses, stomp_port=stomp_tls.port, tls=Tls(authority.ca))
        assert run_script(ORDER, "Pizza", environ=environment(own)).out == " [x] Sent 'Pizza'\n"
        misnamed = environment(replace(own, stomp_port=wrong_name.port))
        told(ExitCode.PROTOCOL, "cannot be trusted", environ=misnamed)
        plain = environment(replace(own, stomp_port=settings.stomp_port))
        told(ExitCode.PROTOCOL, "TLS with", "61614", environ=plain)
