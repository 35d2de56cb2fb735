"""MQTT with our settings, through paho, and what goes wrong there as one readable line.

paho can run its loop on another thread. But there it drops what a callback raises, and it never stops calling a broker
that refuses us. So its loop runs here, on the thread that waits, and what a callback raises is raised there.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from common.config import Address, Settings, SettingsError
from extras.optional import packages_for
from robust_pika import BadMessage, ConnectionFailure, ConnectionLost, keep_connected, reach
from robust_pika.connecting import tls_context
from robust_pika.errors import AccessRefused, BrokerUnavailable, ChannelFailure, NotAmqp, NotTaken

with packages_for(__file__):
    from paho.mqtt.client import (
        MQTT_ERR_SUCCESS,
        Client,
        ConnectFlags,
        DisconnectFlags,
    )
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

SERVICE = "the MQTT port (1883, with TLS 8883; see RABBITMQ_MQTT_PORT and rabbitmq-plugins enable rabbitmq_mqtt)"
TRIES = 3
SESSION_SECONDS = 24 * 60 * 60
"""How long RabbitMQ keeps the queue of a session that is away; with MQTT 3.1.1 the broker alone decides."""
AT_A_TIME = 100
"""Messages at QoS 1 that may be unacknowledged; paho keeps what is beyond that."""
NOT_SUPPORTED = "Unsupported protocol version"
TOO_LARGE = "Packet too large"
TAKEN_OVER = "Session taken over"


class NotMqtt(NotAmqp):
    """Something answers at the port, but it does not speak this version of MQTT."""


class Link:
    """A connection to the broker, made again when it is lost.

    ``client`` is paho's, for publishing, subscribing and the callbacks. ``version`` is that of MQTT: "5" or "3.1.1".
    """

    def __init__(self, client: Client, version: str, settings: Settings, *, keep_session: bool) -> None:
        self.client = client
        self.version = version
        self._settings = settings
        self._clean = not keep_session
        self._open = self._opened_before = False
        self._on_connect: Callable[[], None] = lambda: None
        # RabbitMQ's answer to CONNECT, why it closed the connection, and its limit for a packet, in bytes.
        self._answer: ReasonCode | None = None
        self._reason: ReasonCode | None = None
        self._largest: int | None = None
        self._subscribing: set[int | None] = set()
        self._unacknowledged: set[int] = set()
        # Whether RabbitMQ has answered anything on this connection; how many connections in a row it has not.
        self._answered = False
        self._in_vain = 0
        client.on_subscribe = self._subscribed
        client.on_publish = self._published
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected

    @property
    def is_5(self) -> bool:
        """Whether it is MQTT 5."""
        return self.version == "5"

    def open(self, settings: Settings) -> None:
        """Connect to the first address that answers. Raises a ConnectionFailure."""
        reach(settings, self._connect, port=settings.mqtt_port, service=SERVICE)
        self._open = True
        if self._opened_before:
            # RabbitMQ does not answer what was asked on the lost connection.
            self._subscribing.clear()
            self._on_connect()
        self._opened_before = True

    def ready(self, on_connect: Callable[[], None]) -> None:
        """Call ``on_connect`` now and after every new connection: it subscribes, and says that we are here.

        Returns when RabbitMQ has answered the subscriptions; what is published from then on will come.
        """
        self._on_connect = on_connect
        on_connect()
        self.until(lambda: not self._subscribing, self._settings.blocked_timeout)

    def subscribe(self, *topics: str) -> None:
        """Subscribe at QoS 1. If RabbitMQ refuses, AccessRefused is raised where its answer is read."""
        _, number = self.client.subscribe([(topic, 1) for topic in topics])
        self._subscribing.add(number)

    def publish(
        self, topic: str, payload: bytes, qos: int, *, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """paho's publish; raises BadMessage for what MQTT or this broker cannot take.

        paho keeps what is at QoS 1 until it is acknowledged, and sends it again on a new connection.
        """
        size = len(payload) + len(topic.encode()) + len(properties.pack() if properties else b"") + 9
        if self._largest and size > self._largest:
            raise BadMessage(
                f"the MQTT packet has {size:,} bytes, more than the {self._largest:,} that this broker takes "
                "(mqtt.max_packet_size_authenticated); store large data elsewhere and send where it is"
            )
        try:
            info = self.client.publish(topic, payload, qos, retain, properties)
        except ValueError as error:
            raise BadMessage(f"the topic {topic!r} cannot be published to: {str(error).rstrip('.')}") from None
        if qos:
            self._unacknowledged.add(info.mid)

    @property
    def unacknowledged(self) -> int:
        """How many messages at QoS 1 RabbitMQ has not acknowledged yet."""
        return len(self._unacknowledged)

    def until(self, condition: Callable[[], bool], limit: float | None = None, *, poll: float = 0.1) -> None:
        """Send and receive until the condition holds, and connect again if need be.

        The condition is looked at when something has come, and every ``poll`` seconds. Raises a ConnectionFailure if
        connecting again makes no sense or took too long; NotTaken if all this takes longer than ``limit`` seconds.
        """
        deadline = None if limit is None else time.monotonic() + limit

        def session(settings: Settings) -> None:
            if not self._open:
                self.open(settings)
            while not condition():
                if deadline and time.monotonic() > deadline:
                    raise NotTaken(f"RabbitMQ has not acknowledged it within {limit:g} s (in a memory or disk alarm?)")
                if self.client.loop(poll) != MQTT_ERR_SUCCESS:
                    self._open = False
                    raise self._why_it_broke()

        keep_connected(self._settings, session)

    def until_done(self) -> None:
        """Wait until RabbitMQ has acknowledged all messages at QoS 1, and the others are sent."""
        self.until(lambda: not self._unacknowledged and not self.client.want_write(), self._settings.blocked_timeout)

    def _connect(self, where: Address) -> None:
        self._answer = self._reason = None
        self._answered = False
        keepalive = self._settings.heartbeat
        if self.is_5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self._clean else SESSION_SECONDS
            # After a lost connection, a session that is kept goes on: RabbitMQ still has what it did not deliver.
            self.client.connect(where.host, where.port, keepalive, clean_start=self._clean, properties=properties)
        else:
            self.client.connect(where.host, where.port, keepalive)
        deadline = time.monotonic() + self.client.connect_timeout
        while self._answer is None:
            lost = self.client.loop(0.1) != MQTT_ERR_SUCCESS
            if self._answer is None and (lost or time.monotonic() > deadline):
                raise self._no_answer(where)
        if self._answer.is_failure:
            raise self._refused(str(self._answer), where)

    def _no_answer(self, where: Address) -> ConnectionFailure:
        if self._opened_before:
            # It has spoken MQTT before: a proxy, perhaps, whose broker is starting.
            return BrokerUnavailable(f"what answers at {where}, {SERVICE}, says nothing")
        return NotMqtt(f"what answers at {where} does not speak MQTT {self.version}; expected {SERVICE}")

    def _refused(self, answer: str, where: Address) -> ConnectionFailure:
        if answer == NOT_SUPPORTED:
            return NotMqtt(f"RabbitMQ at {where} does not speak MQTT {self.version}")
        # MQTT has one answer for all of these.
        return AccessRefused(
            f"RabbitMQ at {where} refused user {self._settings.user!r} in virtual host {self._settings.vhost!r} "
            f"({answer}); check RABBITMQ_USER, RABBITMQ_PASSWORD and RABBITMQ_VHOST or AMQP_URL"
        )

    def _why_it_broke(self) -> Exception:
        # Only MQTT 5 says why.
        reason = str(self._reason) if self._reason is not None and self.is_5 else ""
        if reason == TAKEN_OVER:
            return ChannelFailure(
                "another client has connected with this session's name; a session is for one at a time"
            )
        if reason == TOO_LARGE:
            return BadMessage("RabbitMQ has closed the connection: the MQTT packet is too large for it")
        shown = f" ({reason})" if reason else ""
        self._in_vain = 0 if self._answered else self._in_vain + 1
        if self._in_vain == TRIES:
            # That is how MQTT 3.1.1 refuses what a client asks for once it is connected.
            return AccessRefused(
                f"RabbitMQ has closed the connection {TRIES} times without an answer{shown}; has user "
                f"{self._settings.user!r} all permissions in virtual host {self._settings.vhost!r}?"
            )
        return ConnectionLost(f"the MQTT connection is lost{shown}")

    # paho calls these, within its loop() and so on the thread that waits.

    def _connected(
        self, _client: Client, _data: object, _flags: ConnectFlags, answer: ReasonCode, properties: Properties | None
    ) -> None:
        self._answer = answer
        # MQTT 5 tells what the broker takes; with MQTT 3.1.1 it closes the connection when a packet is too large.
        self._largest = getattr(properties, "MaximumPacketSize", None)

    def _disconnected(
        self, _client: Client, _data: object, _flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        self._reason = reason

    def _subscribed(
        self, _client: Client, _data: object, number: int, answers: list[ReasonCode], _properties: object
    ) -> None:
        self._subscribing.discard(number)
        self._answered = True
        for answer in answers:
            if answer.is_failure:
                raise AccessRefused(
                    f"RabbitMQ refused the subscription ({answer}); has user {self._settings.user!r} all permissions "
                    f"in virtual host {self._settings.vhost!r}?"
                )

    def _published(self, _client: Client, _data: object, number: int, answer: ReasonCode, _properties: object) -> None:
        # At QoS 0 it only says that the message has left.
        if number in self._unacknowledged:
            self._answered = True
            self._unacknowledged.discard(number)
        if answer.is_failure:
            raise NotTaken(f"RabbitMQ did not take a message: {answer}")


@contextmanager
def connected(
    name: str,
    settings: Settings,
    *,
    session: str | None = None,
    prepare: Callable[[Client], None] = lambda _client: None,
) -> Iterator[Link]:
    """A Link in MQTT 5 if the broker speaks it (from RabbitMQ 3.13 on), else in MQTT 3.1.1.

    With a ``session``, RabbitMQ keeps what it has for that name while no client is connected. ``prepare`` is called
    before the connection is opened: a last will is part of it. Raises a ConnectionFailure with one readable line.
    """
    if ":" in settings.user:
        raise SettingsError("MQTT takes what precedes a colon for the virtual host; RABBITMQ_USER may not have one")
    # Before RabbitMQ 3.12, a client id is taken for the same in every virtual host.
    client_id = f"{settings.vhost}.{session}" if session else f"{name}.{uuid.uuid4().hex[:8]}"

    def opened(version: str, protocol: MQTTProtocolVersion) -> Link:
        # MQTT 3.1.1 has this among the arguments of the client, MQTT 5 among those of the connection.
        clean = None if version == "5" else session is None
        client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=protocol)
        # MQTT has no field for the virtual host.
        client.username_pw_set(f"{settings.vhost}:{settings.user}", settings.password)
        client.connect_timeout = settings.connect_timeout
        client.max_inflight_messages_set(AT_A_TIME)
        if context := tls_context(settings):
            client.tls_set_context(context)
        prepare(client)
        link = Link(client, version, settings, keep_session=session is not None)
        link.open(settings)
        return link

    try:
        link = opened("5", MQTTProtocolVersion.MQTTv5)
    except NotMqtt:
        # RabbitMQ 3.10 closes the connection of a client that speaks MQTT 5.
        link = opened("3.1.1", MQTTProtocolVersion.MQTTv311)
    try:
        yield link
    finally:
        with suppress(OSError, ValueError):
            link.client.disconnect()
