"""Every protocol publishes to every other one, with the client libraries as they are; and the table in
protocols/README.md says what arrives."""

from __future__ import annotations

import asyncio
import importlib
import queue
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pika import BasicProperties

from common.config import Settings
from common.connection import connect
from tests.support.process import ROOT, wait_until

README = ROOT / "protocols" / "README.md"
BODY = b"\x00\xff Gr\xc3\xbc\xc3\x9fe"
CONTENT_TYPE = "application/x-order"
HEADER = ("shop", "north")
KEY = "matrix.order"
QUEUE = "matrix.orders"
STREAM = "matrix.stream"
LIMIT = 60.0
MQTT_5 = (3, 13)
AMQP_1_0 = (4, 0)
STREAM_QUEUE = {"x-queue-type": "stream"}


@dataclass(frozen=True)
class Received:
    """What a client was given."""

    body: bytes
    content_type: str | None
    header: str | None

    def cell(self) -> str:
        """What the table says of it."""
        assert self.body == BODY
        lost = [
            name
            for name, value, sent in (
                ("content type", self.content_type, CONTENT_TYPE),
                ("header", self.header, HEADER[1]),
            )
            if value != sent
        ]
        return "body only" if len(lost) == 2 else f"no {lost[0]}" if lost else "✓"


Receive = Callable[[], Received]
"""Waits for the message."""


def from_amqp(properties: BasicProperties, body: bytes) -> Received:
    return Received(body, properties.content_type, (properties.headers or {}).get(HEADER[0]))


# AMQP 0-9-1


def amqp_publish(settings: Settings, _version: tuple[int, ...]) -> None:
    with connect("matrix", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = BasicProperties(content_type=CONTENT_TYPE, headers=dict([HEADER]), delivery_mode=2)
        channel.basic_publish("amq.topic", KEY, BODY, properties, mandatory=True)


@contextmanager
def amqp_receive(settings: Settings, source: str, _version: tuple[int, ...]) -> Iterator[Receive]:
    with connect("matrix", settings) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)

        def receive() -> Received:
            arguments = {"x-stream-offset": "first"} if source == STREAM else None
            for method, properties, body in channel.consume(source, arguments=arguments, inactivity_timeout=LIMIT):
                assert method is not None, f"nothing after {LIMIT} s"
                channel.basic_ack(method.delivery_tag)
                return from_amqp(properties, body)
            raise AssertionError("the consumer was cancelled")

        yield receive


# AMQP 1.0

NO_CLIENT = "the AMQP 1.0 client is not installed: protocols/amqp_1_0/requirements.txt needs a C compiler"


@contextmanager
def amqp_1_0(settings: Settings) -> Iterator[Any]:
    library = pytest.importorskip("rabbitmq_amqp_python_client", reason=NO_CLIENT)
    address = settings.addresses[0]
    uri = library.AmqpUri(
        host=address.host, port=address.port, user=settings.user, password=settings.password, vhost=settings.vhost
    ).to_uri()
    recovery = library.RecoveryConfiguration(active_recovery=False)
    connection = library.Environment(uri=uri, recovery_configuration=recovery).connection()
    connection.dial()
    try:
        yield library, connection
    finally:
        connection.close()


def amqp_1_0_publish(settings: Settings, _version: tuple[int, ...]) -> None:
    with amqp_1_0(settings) as (library, connection):
        publisher = connection.publisher(library.AddressHelper.exchange_address("amq.topic", KEY))
        message = library.Message(
            BODY, inferred=True, durable=True, content_type=CONTENT_TYPE, application_properties=dict([HEADER])
        )
        assert publisher.publish(message).remote_state == library.OutcomeState.ACCEPTED


@contextmanager
def amqp_1_0_receive(settings: Settings, source: str, _version: tuple[int, ...]) -> Iterator[Receive]:
    # Here and not on the thread, where nobody would hear of it.
    pytest.importorskip("rabbitmq_amqp_python_client", reason=NO_CLIENT)
    got: queue.SimpleQueue[Received] = queue.SimpleQueue()

    class Enough(Exception):
        pass

    def consume() -> None:
        with amqp_1_0(settings) as (library, connection):

            class Handler(library.AMQPMessagingHandler):  # type: ignore[misc, name-defined]
                def on_amqp_message(self, event: Any) -> None:
                    message = event.message
                    headers = message.application_properties or {}
                    got.put(Received(bytes(message.body), message.content_type, headers.get(HEADER[0])))
                    self.delivery_context.accept(event)
                    raise Enough

            options = (
                library.StreamConsumerOptions(offset_specification=library.OffsetSpecification.first)
                if source == STREAM
                else None
            )
            address = library.AddressHelper.queue_address(source)
            with suppress(Enough):
                connection.consumer(address, message_handler=Handler(), consumer_options=options).run()

    # Its run() ends when a message comes, or never: so it is on a thread that nobody has to wait for.
    thread = threading.Thread(target=consume, daemon=True)

    def receive() -> Received:
        thread.start()
        return got.get(timeout=LIMIT)

    yield receive


# MQTT


def mqtt_client(settings: Settings, version: tuple[int, ...], name: str) -> Any:
    paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed: protocols/mqtt/requirements.txt")
    protocol = paho.MQTTv5 if version >= MQTT_5 else paho.MQTTv311
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, f"{name}.{settings.vhost}", protocol=protocol)
    client.username_pw_set(f"{settings.vhost}:{settings.user}", settings.password)
    client.connect(settings.addresses[0].host, settings.mqtt_port)
    return client


def mqtt_publish(settings: Settings, version: tuple[int, ...]) -> None:
    client = mqtt_client(settings, version, "publisher")
    properties = None
    if version >= MQTT_5:
        module = importlib.import_module("paho.mqtt.properties")
        properties = module.Properties(module.PacketTypes.PUBLISH)
        properties.ContentType = CONTENT_TYPE
        properties.UserProperty = HEADER
    client.loop_start()
    try:
        client.publish(KEY.replace(".", "/"), BODY, qos=1, properties=properties).wait_for_publish(LIMIT)
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def mqtt_receive(settings: Settings, _source: str, version: tuple[int, ...]) -> Iterator[Receive]:
    got: queue.SimpleQueue[Received] = queue.SimpleQueue()
    subscribed = threading.Event()
    client = mqtt_client(settings, version, "subscriber")

    def on_message(_client: Any, _data: object, message: Any) -> None:
        told = message.properties
        headers = dict(getattr(told, "UserProperty", [])) if told else {}
        got.put(Received(message.payload, getattr(told, "ContentType", None), headers.get(HEADER[0])))

    client.on_message = on_message
    client.on_subscribe = lambda *_told: subscribed.set()
    client.on_connect = lambda client, *_told: client.subscribe(KEY.replace(".", "/"), qos=1)
    client.loop_start()
    try:
        assert subscribed.wait(LIMIT)
        yield lambda: got.get(timeout=LIMIT)
    finally:
        client.disconnect()
        client.loop_stop()


# STOMP


def stomp_connection(settings: Settings, listener: Any = None) -> Any:
    stomp = pytest.importorskip("stomp", reason="stomp.py is not installed: protocols/stomp/requirements.txt")
    connection = stomp.Connection12(
        [(settings.addresses[0].host, settings.stomp_port)], vhost=settings.vhost, auto_decode=False
    )
    if listener is not None:
        connection.set_listener("matrix", listener)
    connection.connect(settings.user, settings.password, wait=True)
    return connection


class Receipts:
    """A listener of stomp.py."""

    def __init__(self) -> None:
        self.receipts: set[str] = set()
        self.got: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self.errors: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_told: None
        raise AttributeError(name)

    def on_receipt(self, frame: Any) -> None:
        self.receipts.add(frame.headers["receipt-id"])

    def on_error(self, frame: Any) -> None:
        self.errors.append(str(frame.body))

    def on_message(self, frame: Any) -> None:
        body = frame.body if isinstance(frame.body, bytes) else frame.body.encode()
        self.got.put(Received(body, frame.headers.get("content-type"), frame.headers.get(HEADER[0])))

    def wait(self, receipt: str) -> None:
        wait_until(lambda: receipt in self.receipts or self.errors, LIMIT)
        assert self.errors == []


def stomp_publish(settings: Settings, _version: tuple[int, ...]) -> None:
    listener = Receipts()
    connection = stomp_connection(settings, listener)
    headers = {HEADER[0]: HEADER[1], "persistent": "true", "receipt": "sent"}
    connection.send(f"/topic/{KEY}", BODY, CONTENT_TYPE, headers=headers)
    listener.wait("sent")
    connection.disconnect()


@contextmanager
def stomp_receive(settings: Settings, source: str, _version: tuple[int, ...]) -> Iterator[Receive]:
    listener = Receipts()
    connection = stomp_connection(settings, listener)
    headers = {"receipt": "subscribed", "prefetch-count": "10"}
    if source == STREAM:
        headers["x-stream-offset"] = "first"
    connection.subscribe(f"/amq/queue/{source}", id="1", ack="client-individual", headers=headers)
    listener.wait("subscribed")

    def receive() -> Received:
        with suppress(queue.Empty):
            return listener.got.get(timeout=LIMIT)
        raise AssertionError(f"nothing after {LIMIT} s {listener.errors}")

    try:
        yield receive
    finally:
        connection.disconnect()


# Streams


def stream_options(settings: Settings) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=settings.tls.ca_file) if settings.tls else None
    return {
        "host": settings.addresses[0].host,
        "port": settings.stream_port,
        "vhost": settings.vhost,
        "username": settings.user,
        "password": settings.password,
        "ssl_context": context,
    }


def stream_publish(settings: Settings, _version: tuple[int, ...]) -> None:
    rstream = pytest.importorskip("rstream", reason="rstream is not installed: protocols/streams/requirements.txt")

    async def publish() -> None:
        async with rstream.Producer(**stream_options(settings)) as producer:
            message = rstream.AMQPMessage(
                body=BODY,
                properties=rstream.Properties(content_type=CONTENT_TYPE),
                application_properties=dict([HEADER]),
            )
            await producer.send_wait(STREAM, message)

    asyncio.run(asyncio.wait_for(publish(), LIMIT))


@contextmanager
def stream_receive(settings: Settings, _source: str, _version: tuple[int, ...]) -> Iterator[Receive]:
    rstream = pytest.importorskip("rstream", reason="rstream is not installed: protocols/streams/requirements.txt")

    def text(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value

    async def read() -> Received:
        got: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

        async def on_message(data: bytes, _context: Any) -> None:
            message = rstream.amqp_decoder(data)
            headers = {text(key): text(value) for key, value in (message.application_properties or {}).items()}
            content_type = text(message.properties.content_type) if message.properties else None
            if not got.done():
                got.set_result(Received(bytes(message.body), content_type, headers.get(HEADER[0])))

        async with rstream.Consumer(**stream_options(settings)) as consumer:
            first = rstream.ConsumerOffsetSpecification(rstream.OffsetType.FIRST, None)
            await consumer.subscribe(STREAM, on_message, offset_specification=first)
            return await got

    yield lambda: asyncio.run(asyncio.wait_for(read(), LIMIT))


Publish = Callable[[Settings, tuple[int, ...]], None]
Receiver = Callable[[Settings, str, tuple[int, ...]], AbstractContextManager[Receive]]
PROTOCOLS: dict[str, tuple[Publish, Receiver]] = {
    "AMQP 0-9-1": (amqp_publish, amqp_receive),
    "AMQP 1.0": (amqp_1_0_publish, amqp_1_0_receive),
    "streams": (stream_publish, stream_receive),
    "MQTT": (mqtt_publish, mqtt_receive),
    "STOMP": (stomp_publish, stomp_receive),
}
CANNOT = "cannot"


def table(version: str, path: Path = README) -> dict[tuple[str, str], str]:
    """(sender, receiver) → cell, from the table below the heading that ends with this version."""
    text = path.read_text(encoding="utf-8")
    part = re.search(rf"^### .*{re.escape(version)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part, f"no table for {version} in {path}"
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in part[1].splitlines()
        if line.startswith("|")
    ]
    receivers = [name.removeprefix("to ") for name in rows[0][1:]]
    return {
        (cells[0].removeprefix("from "), receiver): cell
        for cells in rows[2:]
        for receiver, cell in zip(receivers, cells[1:], strict=True)
    }


@pytest.mark.parametrize("version", ["3.10", "4.3"])
def test_the_table_is_complete(version: str) -> None:
    assert set(table(version)) == {(sender, receiver) for sender in PROTOCOLS for receiver in PROTOCOLS}


@pytest.mark.parametrize("receiver", PROTOCOLS)
@pytest.mark.parametrize("sender", PROTOCOLS)
def test_what_one_publishes_the_other_receives(
    sender: str, receiver: str, settings: Settings, broker_version: tuple[int, int, int]
) -> None:
    version = ".".join(map(str, broker_version[:2]))
    # Another version than those of the tables behaves as one of them, if it behaves.
    told = table("3.10" if broker_version < MQTT_5 else "4.3")[sender, receiver]
    publish, receiving = PROTOCOLS[sender][0], PROTOCOLS[receiver][1]
    if "AMQP 1.0" in (sender, receiver) and broker_version < AMQP_1_0:
        assert told == "needs 4.0"
        pytest.skip(f"the AMQP 1.0 client needs RabbitMQ 4.0 or later; this broker is {version}")
    if sender == "streams" and receiver == "MQTT":
        # Its subscriptions have queues of their own, bound to an exchange; one cannot subscribe to a stream.
        assert told == CANNOT
        pytest.skip("MQTT cannot subscribe to a stream")
    with connect("matrix", settings) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare(STREAM, durable=True, arguments=STREAM_QUEUE)
        if sender != "streams":
            # A stream is what its clients publish to; all others meet at an exchange.
            for bound in (QUEUE, STREAM):
                channel.queue_bind(bound, "amq.topic", KEY)
    source = STREAM if "streams" in (sender, receiver) else QUEUE
    with receiving(settings, source, broker_version) as receive:
        publish(settings, broker_version)
        assert receive().cell() == told
