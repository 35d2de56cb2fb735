"""protocols/mqtt, where its README does not look: nothing lost through kills and cuts, what survives the translation,
and what goes wrong told in one line."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from extras.management import Management
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import take
from tests.support.tls import Authority, TlsProxy
from tour.vhost import environment

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed: protocols/mqtt/requirements.txt")
from paho.mqtt.packettypes import PacketTypes  # noqa: E402
from paho.mqtt.properties import Properties  # noqa: E402

SENSOR = "protocols/mqtt/sensor.py"
DISPLAY = "protocols/mqtt/display.py"
DISPLAY_AMQP = "protocols/mqtt/display_amqp.py"
PUBLISH = "protocols/mqtt/publish.py"
CORRECT = "protocols/mqtt/correct_amqp.py"
READING = re.compile(r" \[x\] (\w+), reading (\d+): ")
READINGS = 1000
MQTT_5 = (3, 13)
SECRET = "not-for-your-eyes"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def temperatures(channel: BlockingChannel, key: str = "mqtt.#") -> str:
    """A temporary queue of what MQTT's clients publish."""
    queue: str = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", key)
    return queue


def numbers(lines: list[str]) -> list[int]:
    return [int(match[2]) for line in lines if (match := READING.match(line))]


def some_more(display: Script) -> bool:
    return len(numbers(display.lines)) > 100


def all_there(received: list[int], display: Script) -> bool:
    return len({*received, *numbers(display.lines)}) == READINGS


def more_than(channel: BlockingChannel, queue: str, count: int) -> bool:
    waiting: int = channel.queue_declare(queue, passive=True).method.message_count
    return waiting > count


@contextmanager
def foreign(settings: Settings, version: int) -> Iterator[paho.Client]:
    """paho without anything of ours, connected."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, f"test.{settings.vhost}", protocol=version)
    client.username_pw_set(f"{settings.vhost}:{settings.user}", settings.password)
    client.connect(settings.addresses[0].host, settings.mqtt_port)
    client.loop_start()
    try:
        wait_until(client.is_connected)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("script", [SENSOR, DISPLAY, DISPLAY_AMQP, PUBLISH, CORRECT])
def test_help_says_how_it_is_called(script: str, offline: dict[str, str]) -> None:
    result = run_script(script, "--help", environ=offline)
    assert f"python {script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_a_display_that_is_killed_and_comes_back_misses_nothing(environ: dict[str, str]) -> None:
    """1,000 readings at QoS 1; the display is killed while they come, three times, and twice while it is away."""
    with Script(DISPLAY, "--session", "hall", environ=environ) as display:
        display.expect("Waiting")
    received: list[int] = []
    deaths = 0
    with Script(SENSOR, "cellar", "--count", str(READINGS), "--every", "0.002", environ=environ) as sensor:
        while READINGS not in received:
            with Script(DISPLAY, "--session", "hall", environ=environ) as display:
                if deaths < 3:
                    # As soon as it has some more of them.
                    wait_until(partial(some_more, display))
                    display.kill()
                    deaths += 1
                else:
                    display.expect(f"reading {READINGS}:")
                    # Whatever was given back to the queue comes after that.
                    wait_until(partial(all_there, received, display))
                    display.interrupt()
                display.wait()
                received += numbers(display.lines)
        assert sensor.wait() == 0
    assert deaths == 3
    assert set(received) == set(range(1, READINGS + 1))
    # Twice is only what was in hand at a death.
    assert len(received) - READINGS <= 3 * READINGS


def test_a_sensor_whose_connection_is_cut_goes_on_and_loses_nothing(
    settings: Settings, environ: dict[str, str], channel: BlockingChannel
) -> None:
    queue = temperatures(channel, "mqtt.cellar.temperature")
    with Proxy(Address("127.0.0.1", settings.mqtt_port)) as proxy:
        through = environ | {"RABBITMQ_MQTT_PORT": str(proxy.address.port)}
        with Script(SENSOR, "cellar", "--count", "500", "--every", "0.004", environ=through) as sensor:
            sensor.expect("is on")
            for _ in range(3):
                before = channel.queue_declare(queue, passive=True).method.message_count
                wait_until(partial(more_than, channel, queue, before + 20))
                proxy.cut()
                sensor.expect("connection is lost.*connecting again")
            sensor.expect("Sent 500 readings", limit=60)
            assert sensor.wait() == 0
    got = set()
    for _method, _properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=1):
        if body is None:
            break
        got.add(json.loads(body)["number"])
    assert got == set(range(1, 501))


def test_a_sensor_whose_power_fails_is_announced(settings: Settings, environ: dict[str, str]) -> None:
    """Nothing tells the broker, except that nothing comes: the will is published when the keep-alive is over."""
    with (
        Proxy(Address("127.0.0.1", settings.mqtt_port)) as proxy,
        Script(DISPLAY, environ=environ) as display,
    ):
        display.expect("Waiting")
        through = environ | {"RABBITMQ_MQTT_PORT": str(proxy.address.port), "RABBITMQ_HEARTBEAT": "2"}
        with Script(SENSOR, "cellar", "--every", "60", environ=through) as sensor:
            display.expect("cellar, reading 1")
            proxy.stall()
            display.expect("cellar is lost")
            sensor.kill()
            proxy.resume()


def test_qos_tells_amqp_what_to_keep(environ: dict[str, str], channel: BlockingChannel) -> None:
    queue = temperatures(channel, "mqtt.*.temperature")
    for qos in ("0", "1"):
        arguments = (SENSOR, "cellar", "--count", "50", "--every", "0", "--qos", qos)
        assert run_script(*arguments, environ=environ).code == 0
    taken = take(channel, queue, 100)
    assert [properties.delivery_mode for properties, _body in taken] == [1] * 50 + [2] * 50
    assert [json.loads(body)["number"] for _properties, body in taken] == [*range(1, 51), *range(1, 51)]


def test_from_mqtt_3_to_amqp(settings: Settings, channel: BlockingChannel) -> None:
    queue = temperatures(channel)
    with foreign(settings, paho.MQTTv311) as client:
        client.publish("mqtt/cold.room/temperature", b"\x00\xff", 1).wait_for_publish(30)
    [(properties, body)] = take(channel, queue, 1)
    assert body == b"\x00\xff"
    assert (properties.content_type, properties.correlation_id, properties.message_id) == (None, None, None)
    assert [name for name in properties.headers or {} if not name.startswith("x-mqtt-")] == []


def test_from_mqtt_5_to_amqp(
    settings: Settings, broker_version: tuple[int, int, int], channel: BlockingChannel
) -> None:
    if broker_version < MQTT_5:
        pytest.skip("MQTT 5 needs RabbitMQ 3.13 or later")
    queue = temperatures(channel)
    told = Properties(PacketTypes.PUBLISH)
    told.ContentType, told.UserProperty, told.MessageExpiryInterval = "text/plain", ("unit", "°C"), 60
    told.CorrelationData = b"42"
    with foreign(settings, paho.MQTTv5) as client:
        client.publish("mqtt/cellar/note", b"warm", 1, properties=told).wait_for_publish(30)
    [(properties, body)] = take(channel, queue, 1)
    assert body == b"warm"
    assert (properties.content_type, properties.correlation_id) == ("text/plain", "42")
    assert properties.expiration == "60000"
    assert properties.headers == {"unit": "°C"}


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])
def test_from_amqp_to_mqtt(
    version: int, settings: Settings, broker_version: tuple[int, int, int], channel: BlockingChannel
) -> None:
    if version == paho.MQTTv5 and broker_version < MQTT_5:
        pytest.skip("MQTT 5 needs RabbitMQ 3.13 or later")
    received: list[paho.MQTTMessage] = []
    subscribed: list[int] = []
    with foreign(settings, version) as client:
        client.on_message = lambda _client, _data, message: received.append(message)
        client.on_subscribe = lambda _client, _data, number, _answers, _told: subscribed.append(number)
        client.subscribe("mqtt/#", 1)
        wait_until(lambda: subscribed)
        for mode in (1, 2):
            properties = pika.BasicProperties(
                delivery_mode=mode,
                content_type="text/plain",
                correlation_id="42",
                headers={"unit": "°C", "number": 5},
                expiration="60000",
                message_id="m",
            )
            channel.basic_publish("amq.topic", "mqtt.cellar.note", b"\x00\xff", properties)
        wait_until(lambda: len(received) == 2)
    assert [(message.topic, message.payload) for message in received] == [("mqtt/cellar/note", b"\x00\xff")] * 2
    # Since 3.12 a transient message is one at QoS 0.
    assert [message.qos for message in received] == ([0, 1] if broker_version >= (3, 12) else [1, 1])
    if version == paho.MQTTv5:
        for message in received:
            assert message.properties.ContentType == "text/plain"
            assert message.properties.CorrelationData == b"42"
            assert sorted(message.properties.UserProperty) == [("number", "5"), ("unit", "°C")]
            assert not hasattr(message.properties, "MessageExpiryInterval")


def test_what_is_no_reading_goes_to_the_dead_letters(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(DISPLAY_AMQP, environ=environ) as display:
        display.expect("Waiting")
        for text in ('{"number": 1}', "[1, 2]", '{"number": "x", "celsius": 1}'):
            assert run_script(PUBLISH, "mqtt/cellar/temperature", text, environ=environ).code == 0
            display.expect("rejected: it is not a reading")
        assert run_script(SENSOR, "cellar", "--count", "1", "--every", "0", environ=environ).code == 0
        display.expect("mqtt.cellar.temperature, reading 1: 18.1 °C")
        display.interrupt()
        assert display.wait() == 0
    assert len(take(channel, "mqtt.readings.dead_letters", 3)) == 3


def test_a_correction_that_is_none_is_told_and_dropped(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(SENSOR, "cellar", environ=environ) as sensor:
        sensor.expect("is on")
        for body in (b"", b"warm", b"true", b"1e9", b"\xff"):
            channel.basic_publish("amq.topic", "mqtt.cellar.correction", body)
            sensor.expect("dropped from mqtt/cellar/correction")
        channel.basic_publish("amq.topic", "mqtt.cellar.correction", b"2")
        sensor.expect(r"Told to correct by \+2 °C")
        sensor.terminate()
        assert sensor.wait() == 0
        assert " [*] Switched off" in sensor.lines


def test_a_session_is_for_one_at_a_time(environ: dict[str, str], broker_version: tuple[int, int, int]) -> None:
    if broker_version < MQTT_5:
        pytest.skip("why a connection ended is told by MQTT 5 only, which needs RabbitMQ 3.13 or later")
    with Script(DISPLAY, "--session", "hall", environ=environ) as first:
        first.expect("Waiting")
        with Script(DISPLAY, "--session", "hall", environ=environ) as second:
            second.expect("Waiting")
            assert first.wait() == ExitCode.PROTOCOL
            assert first.lines[1:] == [
                "error: another client has connected with this session's name; a session is for one at a time"
            ]


def told(
    code: ExitCode,
    *words: str,
    script: str = PUBLISH,
    arguments: tuple[str, ...] = ("mqtt/x", "hi"),
    stdin: bytes = b"",
) -> Callable[[dict[str, str]], None]:
    """Run it, and see that it fails with this code and one line in these words."""

    def check(environ: dict[str, str]) -> None:
        result = run_script(script, *arguments, environ=environ, stdin=stdin, limit=60)
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        for word in words:
            assert word in result.err
        assert SECRET not in result.err

    return check


def test_nothing_at_the_port(environ: dict[str, str]) -> None:
    """So it is where the plugin is not enabled."""
    port = str(Ports.free().mqtt)
    check = told(
        ExitCode.UNAVAILABLE, f":{port}, the MQTT port", "rabbitmq-plugins enable rabbitmq_mqtt", "make broker"
    )
    check(environ | {"RABBITMQ_MQTT_PORT": port})


def test_another_protocol_at_the_port(settings: Settings, environ: dict[str, str]) -> None:
    port = str(settings.addresses[0].port)
    told(ExitCode.PROTOCOL, port, "does not speak MQTT", "RABBITMQ_MQTT_PORT")(environ | {"RABBITMQ_MQTT_PORT": port})


def test_a_host_that_does_not_exist(settings: Settings) -> None:
    nowhere = replace(settings, addresses=(Address("rabbit.invalid", 5672),))
    told(ExitCode.NO_HOST, "rabbit.invalid", "RABBITMQ_HOST")(environment(nowhere))


def test_a_wrong_password(settings: Settings) -> None:
    wrong = environment(replace(settings, password=SECRET))
    told(ExitCode.ACCESS, settings.user, "RABBITMQ_PASSWORD")(wrong)


def test_a_virtual_host_that_does_not_exist(settings: Settings) -> None:
    nowhere = environment(replace(settings, vhost="nowhere"))
    told(ExitCode.ACCESS, "'nowhere'", "RABBITMQ_VHOST")(nowhere)


def test_a_user_with_a_colon(settings: Settings) -> None:
    told(ExitCode.CONFIG, "RABBITMQ_USER", "colon")(environment(replace(settings, user="a:b")))


def test_wildcards_in_a_publish(environ: dict[str, str]) -> None:
    for topic in ("mqtt/+/state", "mqtt/#", "#"):
        told(ExitCode.DATA, repr(topic), "wildcards", arguments=(topic, "hi"))(environ)
    check = told(ExitCode.USAGE, "'cellar/#'", "wildcard", script=SENSOR, arguments=("cellar/#",))
    check(environ)


def test_topics_that_cannot_be(environ: dict[str, str]) -> None:
    told(ExitCode.DATA, "AMQP allows 255", arguments=("x" * 256, "hi"))(environ)
    told(ExitCode.DATA, "empty", arguments=("", "hi"))(environ)
    told(ExitCode.DATA, "empty", arguments=("mqtt/x", ""))(environ)


def test_a_packet_over_the_limit(environ: dict[str, str], broker_version: tuple[int, int, int]) -> None:
    """The text is just small enough, and the packet with its topic is not."""
    text = b"x" * (16 * 1024 * 1024 - 5)
    if broker_version < (4, 0):
        result = run_script(PUBLISH, "mqtt/x", "-", environ=environ, stdin=text, limit=60)
        assert (result.code, result.out) == (0, " [x] Sent to 'mqtt/x'\n")
    else:
        told(ExitCode.DATA, "16,777,216", "store large data elsewhere", arguments=("mqtt/x", "-"), stdin=text)(environ)
    told(ExitCode.DATA, "16,777,216", "store large", arguments=("mqtt/x", "-"), stdin=b"x" * 20_000_000)(environ)


def test_a_subscription_that_is_refused(settings: Settings, management: Management) -> None:
    name = f"reader.{settings.vhost}"
    management.create_user(name, SECRET)
    try:
        management.set_permissions(name, settings.vhost, read="nothing")
        own = environment(replace(settings, user=name, password=SECRET))
        result = run_script(DISPLAY, environ=own)
        assert result.code == ExitCode.ACCESS
        # What is told depends on the version of MQTT: 3.1.1 only hangs up.
        assert f"has user {name!r} all permissions in virtual host {settings.vhost!r}?" in result.err.splitlines()[-1]
    finally:
        management.delete_user(name)


def test_a_port_that_accepts_and_says_nothing(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        told(ExitCode.PROTOCOL, port, "does not speak MQTT")(
            environ | {"RABBITMQ_MQTT_PORT": port, "RABBITMQ_CONNECT_TIMEOUT": "1"}
        )


def test_tls(settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    target = Address(settings.addresses[0].host, settings.mqtt_port)
    with TlsProxy(target, authority.issue("server", "DNS:localhost,IP:127.0.0.1")) as proxy:
        own = replace(settings, addresses=(Address("127.0.0.1", 1),), mqtt_port=proxy.port)
        trusting = environment(replace(own, tls=Tls(authority.ca)))
        assert run_script(PUBLISH, "mqtt/x", "hi", environ=trusting).out == " [x] Sent to 'mqtt/x'\n"
        told(ExitCode.PROTOCOL, "cannot be trusted", "RABBITMQ_CA_FILE")(environment(replace(own, tls=Tls())))
    told(ExitCode.PROTOCOL, "TLS with", "8883")(environment(replace(settings, tls=Tls(authority.ca))))
