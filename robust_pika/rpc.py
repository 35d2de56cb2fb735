"""Asking over RabbitMQ: a client that any program can use which has a question for a server behind a queue.

with RpcClient("my program", ConnectionSettings()) as client:
    reply = client.ask("rpc.requests", b"30", deadline=5)
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from types import TracebackType

from pika import BasicProperties, ConnectionParameters, DeliveryMode
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic

from robust_pika._io.ledger import Encoded
from robust_pika._io.link import Link
from robust_pika.connecting import reach_amqp
from robust_pika.errors import (
    BadMessage,
    CallRefused,
    ConnectionFailure,
    NoReply,
    NoServer,
    RobustPikaError,
    ServerError,
)
from robust_pika.explaining import explain
from robust_pika.messages import Message, check_name
from robust_pika.settings import ConnectionSettings

log = logging.getLogger("robust_pika")

REPLIES = "amq.rabbitmq.reply-to"
"""No queue, though it is consumed like one: RabbitMQ hands a reply straight to the channel that has asked."""


class Call:
    """A question that was asked: ``done`` when ``reply`` or ``error`` is known.

    It is its own request, too: mandatory, to hear at once if nobody serves. Not confirmed: the reply says more than a
    confirm could.
    """

    exchange = ""
    mandatory = True

    def __init__(self, client: str, number: int, queue: str, body: bytes, seconds: float) -> None:
        check_name("name of the queue", queue)
        self.id = str(number)
        self.client = client
        self.routing_key = queue
        self.body = body
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.reply: Message | None = None
        self.error: RobustPikaError | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.reply is not None or self.error is not None

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def properties(self) -> Encoded:
        """Of the request, if it is sent now."""
        return Encoded(
            BasicProperties(
                reply_to=REPLIES,
                correlation_id=self.id,
                message_id=f"{self.client}-{self.id}",
                # RabbitMQ drops the request when its time is up: nobody is to work for a client that has gone.
                expiration=str(max(1, int(self.left * 1000))),
                # Not worth a place on the disk: if RabbitMQ restarts, we ask again.
                delivery_mode=DeliveryMode.Transient,
            )
        )


class RpcClient:
    """Any number of calls in flight on one connection; for one thread.

    ``send`` asks, ``wait`` takes the reply, ``ask`` does both. When the connection breaks, the client connects again
    and asks again whatever is unanswered: a server may do a request twice, as it may when another server has died. A
    call that cannot be asked again before its deadline fails.

    Raises a readable ConnectionFailure if it cannot connect at first.
    """

    def __init__(self, name: str, settings: ConnectionSettings) -> None:
        self.dropped = 0
        """Replies that no call waited for: too late, or a second time."""
        self._name = name
        self._settings = settings
        self._id = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Call] = {}
        self._wanted: Call | None = None  # by who waits for it just now
        self._link = self._open(settings.connect_timeout)

    def __enter__(self) -> RpcClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._link.close()

    def ask(self, queue: str, body: bytes, *, deadline: float) -> Message:
        """The reply, within ``deadline`` seconds. Raises NoServer, NoReply, ServerError or a ConnectionFailure."""
        return self.wait(self.send(queue, body, deadline=deadline, hold=True))

    def send(self, queue: str, body: bytes, *, deadline: float, hold: bool = False) -> Call:
        """Ask, and do not wait. The reply has to be there in ``deadline`` seconds; what goes wrong, ``wait`` tells.

        If you are about to send another one, ``hold`` this one back until then, or until you have to wait: to send
        many at once is what makes it quick.
        """
        call = Call(self._id, next(self._numbers), queue, body, deadline)
        self._waiting[call.id] = call
        if self._link.broken:
            self._recover(call, self._link.broken)
        else:
            self._link.outgoing.add(call)
            if not hold:
                self._flush(call.left)
        return call

    def wait(self, call: Call) -> Message:
        """The reply to a call. Raises what ``ask`` raises."""
        while not call.done:
            if call.left <= 0:
                # From now on, its reply is one that nobody waits for.
                self._fail(call, NoReply(f"no reply within {call.seconds:g} s; the server is too slow, or gone"))
                break
            # Replies to other calls may come first. They are kept until it is their turn.
            self._wanted = call
            self._link.run(call.left)
            self._wanted = None
            if isinstance(self._link.broken, ChannelClosedByBroker):
                self._refused()
            elif self._link.broken:
                self._recover(call, self._link.broken)
        if call.error:
            raise call.error
        assert call.reply is not None
        return call.reply

    def _open(self, seconds: float) -> Link:
        return reach_amqp(self._name, self._settings, self._linked, deadline=seconds)

    def _linked(self, choice: ConnectionParameters) -> Link:
        link = Link(choice)
        try:
            link.channel.add_on_return_callback(self._on_return)
            # Without acknowledgements, and on the channel that asks: RabbitMQ insists on both.
            link.consume(REPLIES, self._on_reply, auto_ack=True)
        except Exception:
            link.close()
            raise
        return link

    def _flush(self, seconds: float) -> None:
        """Send all requests now, and return when the socket has them, or after ``seconds``.

        RabbitMQ reads nothing while it is short of memory or disk. What is left goes out while we wait for replies.
        """
        end = time.monotonic() + seconds
        self._link.run(0)
        while self._link.unsent and time.monotonic() < end:
            self._link.run(0.005)

    def _on_reply(self, _tag: int, message: Message) -> None:
        try:
            properties = message.properties
        except BadMessage as failure:
            self.dropped += 1
            log.warning(f"a reply was dropped: {failure}")
            return
        call = self._waiting.pop(properties.correlation_id or "", None)
        if call is None:
            self.dropped += 1
            what = f"a reply to call {properties.correlation_id}" if properties.correlation_id else "a reply without id"
            log.warning(f"{what} was dropped: no call waits for it")
        elif properties.type == "error":
            call.error = ServerError(f"the server says: {message.body.decode('utf-8', 'replace')}")
        else:
            call.reply = message
        self._have()

    def _on_return(self, _channel: Channel, _method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        if call := self._waiting.get(properties.correlation_id or ""):
            self._fail(call, NoServer(f"no server is there for {call.routing_key!r}; start one"))
            self._have()

    def _have(self) -> None:
        """Go back to who waits, if that was it."""
        if self._wanted and self._wanted.done:
            self._link.stop()

    def _fail(self, call: Call, failure: RobustPikaError) -> None:
        self._waiting.pop(call.id, None)
        call.error = failure

    def _recover(self, call: Call, error: BaseException) -> None:
        """Connect again, in the time that this call has, and ask again what is unanswered."""
        failure = explain(error, self._settings)
        self._link.close()
        try:
            self._link = self._open(max(0.0, call.left))
        except ConnectionFailure as gone:
            self._fail(call, gone)
            return
        unanswered = [waiting for waiting in self._waiting.values() if waiting.left > 0]
        log.warning(f"{failure}; connected again, calls asked again: {len(unanswered)}")
        for waiting in unanswered:
            self._link.outgoing.add(waiting)
        self._flush(max(0.0, call.left))

    def _refused(self) -> None:
        """RabbitMQ closed the channel over a request, and does not say which. Asked again, it would do so again."""
        self._link.close()
        for waiting in list(self._waiting.values()):
            self._fail(waiting, CallRefused("RabbitMQ refused a request: no permission to publish, or it is too large"))
