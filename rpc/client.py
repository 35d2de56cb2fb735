"""Asking over RabbitMQ: a client that any program can use which has a question for a server behind a queue.

with Client("my program", Settings.load()) as client:
    print(client.ask("rpc.requests", b"30", deadline=5).text())
"""

from __future__ import annotations

import itertools
import time
from types import TracebackType

from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic

from common import console, messages
from common.config import Settings
from common.connection import Connection, ConnectionFailure, connect, explain
from common.consumer import close
from common.errors import ExitCode, Failure
from common.messages import Message

REPLIES = "amq.rabbitmq.reply-to"
"""No queue, though it is consumed like one: RabbitMQ hands a reply straight to the channel that has asked."""


class NoServer(Failure):
    """Nobody has declared the queue of requests: told at once."""

    exit_code = ExitCode.UNROUTABLE


class NoReply(Failure):
    """The deadline has passed. The request may have been done all the same."""

    exit_code = ExitCode.NOT_CONFIRMED


class ServerError(Failure):
    """The server's reply is an error."""

    exit_code = ExitCode.DATA


class Refused(Failure):
    """RabbitMQ does not take the request."""

    exit_code = ExitCode.ACCESS


class Call:
    """A question that was asked: ``done`` when ``reply`` or ``error`` is known."""

    def __init__(self, number: int, queue: str, body: bytes, seconds: float) -> None:
        self.id = str(number)
        self.queue = queue
        self.body = body
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.reply: Message | None = None
        self.error: Failure | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.reply is not None or self.error is not None

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


class Client:
    """Any number of calls in flight on one connection; for one thread.

    ``send`` asks, ``wait`` takes the reply, ``ask`` does both. When the connection breaks, the client connects again
    and asks again whatever is unanswered: a server may do a request twice, as it may when another server has died. A
    call that cannot be asked again before its deadline fails.

    Raises a readable ConnectionFailure if it cannot connect at first.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.dropped = 0
        """Replies that no call waited for: too late, or a second time."""
        self._name = name
        self._settings = settings
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Call] = {}
        self._connection, self._channel = self._open(settings.connect_timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        close(self._connection)

    def ask(self, queue: str, body: bytes, *, deadline: float) -> Message:
        """The reply, within ``deadline`` seconds. Raises NoServer, NoReply, ServerError or a ConnectionFailure."""
        return self.wait(self.send(queue, body, deadline=deadline))

    def send(self, queue: str, body: bytes, *, deadline: float) -> Call:
        """Ask, and do not wait. The reply has to be there in ``deadline`` seconds; what goes wrong, ``wait`` tells."""
        call = Call(next(self._numbers), queue, body, deadline)
        self._waiting[call.id] = call
        try:
            self._publish(call)
        except AMQPError as error:
            self._recover(call, error)
        return call

    def wait(self, call: Call) -> Message:
        """The reply to a call. Raises what ``ask`` raises."""
        while not call.done:
            if call.left <= 0:
                # From now on, its reply is one that nobody waits for.
                self._fail(call, NoReply(f"no reply within {call.seconds:g} s; the server is too slow, or gone"))
                break
            try:
                # Replies to other calls may come first. They are kept until it is their turn.
                self._connection.process_data_events(time_limit=call.left)
                if self._channel.is_closed:
                    self._refused()
            except AMQPError as error:
                self._recover(call, error)
        if call.error:
            raise call.error
        assert call.reply is not None
        return call.reply

    def _open(self, seconds: float) -> tuple[Connection, BlockingChannel]:
        connection = connect(self._name, self._settings, deadline=seconds)
        channel = connection.channel()
        channel.add_on_return_callback(self._on_return)
        # Without acknowledgements, and on the channel that asks: RabbitMQ insists on both.
        channel.basic_consume(REPLIES, self._on_reply, auto_ack=True)
        return connection, channel

    def _publish(self, call: Call) -> None:
        properties = messages.properties(
            reply_to=REPLIES,
            correlation_id=call.id,
            # RabbitMQ drops the request when its time is up: nobody is to work for a client that has gone.
            expiration=str(max(1, int(call.left * 1000))),
            # Not worth a place on the disk: if RabbitMQ restarts, we ask again.
            delivery_mode=DeliveryMode.Transient,
        )
        # Mandatory, to hear at once if nobody serves. Not confirmed: the reply says more than a confirm could.
        self._channel.basic_publish("", call.queue, call.body, properties, mandatory=True)

    def _on_reply(
        self, _channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        call = self._waiting.pop(properties.correlation_id or "", None)
        if call is None:
            self.dropped += 1
            what = f"a reply to call {properties.correlation_id}" if properties.correlation_id else "a reply without id"
            console.warn(f"{what} was dropped: no call waits for it")
        elif properties.type == "error":
            call.error = ServerError(f"the server says: {body.decode('utf-8', 'replace')}")
        else:
            call.reply = Message(body, properties, method.exchange, method.routing_key)

    def _on_return(
        self, _channel: BlockingChannel, _method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        if call := self._waiting.get(properties.correlation_id or ""):
            self._fail(call, NoServer(f"no server is there for {call.queue!r}; start one"))

    def _fail(self, call: Call, failure: Failure) -> None:
        self._waiting.pop(call.id, None)
        call.error = failure

    def _recover(self, call: Call, error: AMQPError) -> None:
        """Connect again, in the time that this call has, and ask again what is unanswered."""
        if self._connection.is_open:
            self._refused()
            return
        failure = explain(error, self._settings)
        try:
            self._connection, self._channel = self._open(max(0.0, call.left))
            unanswered = [waiting for waiting in self._waiting.values() if waiting.left > 0]
            console.warn(f"{failure}; connected again, calls asked again: {len(unanswered)}")
            for waiting in unanswered:
                self._publish(waiting)
        except AMQPError:
            pass  # broken once more: the next look at it finds out
        except ConnectionFailure as gone:
            self._fail(call, gone)

    def _refused(self) -> None:
        """RabbitMQ closed the channel over a request, and does not say which. Asked again, it would do so again."""
        close(self._connection)
        for waiting in list(self._waiting.values()):
            self._fail(waiting, Refused("RabbitMQ refused a request: this user may not publish, or it is too large"))
