"""STOMP with our settings, through stomp.py, and what goes wrong there as one readable line.

stomp.py reads on another thread and calls a listener with what comes. The Link is that listener: it puts all of it
into one queue, from which the thread that waits takes it, and raises what is an error.
"""

import itertools
import logging
import queue
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from common.config import Address, Settings
from extras.optional import packages_for
from robust_pika import ConnectionFailure, ConnectionLost, reach
from robust_pika.connecting import tls_context
from robust_pika.errors import AccessRefused, ChannelFailure, LoginRefused, NoAnswer, NotTaken

with packages_for(__file__):
    from stomp import Connection12, ConnectionListener
    from stomp.exception import ConnectFailedException, NotConnectedException, StompException
    from stomp.utils import Frame

SERVICE = "the STOMP port (61613, with TLS 61614; see RABBITMQ_STOMP_PORT and rabbitmq-plugins enable rabbitmq_stomp)"
ANSWER_SECONDS = 5.0
"""How long one attempt to connect, or to say goodbye, waits for RabbitMQ's answer."""
POLL_SECONDS = 0.2
LINGER_SECONDS = 0.2
"""How long a connection stays open after the last acknowledgement. RabbitMQ passes acknowledgements on to a quorum
queue in small groups. Those that it has not passed on when the connection ends are lost: their messages come again."""
IN_FLIGHT = 100
"""Messages whose receipts we have not got yet."""


class NotStomp(NoAnswer):
    """Something answers at the port, but it does not speak STOMP, or not yet."""


class Link(ConnectionListener):
    """One connection: ``stomp`` is stomp.py's, for sending and acknowledging; what comes is waited for here."""

    def __init__(self, stomp: Connection12, settings: Settings, where: Address) -> None:
        self.stomp = stomp
        self._settings = settings
        self._where = where
        self._coming: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._messages: deque[Frame] = deque()
        self._receipts: set[str] = set()
        self._numbers = itertools.count(1)

    # Called on stomp.py's thread.

    def on_message(self, frame: Frame) -> None:
        self._coming.put(frame)

    def on_receipt(self, frame: Frame) -> None:
        self._coming.put(frame)

    def on_error(self, frame: Frame) -> None:
        self._coming.put(frame)

    def on_connected(self, frame: Frame) -> None:
        self._coming.put(frame)

    def on_disconnected(self) -> None:
        self._coming.put(None)

    # Called on the thread that waits.

    def receipt(self) -> str:
        """A new id to ask for a receipt with: RabbitMQ sends it when what was asked is done, a message is safe."""
        number = f"receipt-{next(self._numbers)}"
        self._receipts.add(number)
        return number

    def wait_for_receipts(self, left: int = 0) -> None:
        """Return when no more than ``left`` receipts are missing. Raises NotTaken if they do not come."""
        deadline = time.monotonic() + self._settings.blocked_timeout
        while len(self._receipts) > left:
            if not self._take(deadline - time.monotonic()):
                raise NotTaken("RabbitMQ does not send the receipts (in a memory or disk alarm?)")

    def messages(self, stop: threading.Event) -> Iterator[Frame]:
        """One message after the other, as they come, until ``stop`` is set. Raises a ConnectionFailure."""
        while not stop.is_set():
            if self._messages:
                yield self._messages.popleft()
            else:
                self._take(POLL_SECONDS)
        time.sleep(LINGER_SECONDS)

    def wait_for_connection(self) -> None:
        """Return when RabbitMQ has accepted the login."""
        with suppress(ConnectionLost):
            if self._take(min(ANSWER_SECONDS, self._settings.connect_timeout)):
                return
        raise NotStomp(f"what answers at {self._where} does not speak STOMP; expected {SERVICE}")

    def close(self) -> None:
        """Say goodbye, and wait a moment for the answer: what was sent before has then arrived."""
        goodbye = "goodbye"
        self._receipts = {goodbye}
        deadline = time.monotonic() + ANSWER_SECONDS
        # If there is no connection any more, there is nothing to wait for.
        with suppress(StompException, OSError, ConnectionFailure):
            self.stomp.send_frame("DISCONNECT", {"receipt": goodbye})
            while self._receipts and self._take(deadline - time.monotonic()):
                pass
        self.stomp.remove_listener("link")
        with suppress(StompException, OSError):
            self.stomp.transport.disconnect_socket()

    def _take(self, seconds: float) -> bool:
        """Handle one frame that comes within so many seconds; False if none does."""
        try:
            frame = self._coming.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return False
        if frame is None:
            raise ConnectionLost("the STOMP connection is lost")
        if frame.cmd == "ERROR":
            raise self._refused(frame)
        if frame.cmd == "MESSAGE":
            self._messages.append(frame)
        self._receipts.discard(frame.headers.get("receipt-id", ""))
        return True

    def _refused(self, frame: Frame) -> ConnectionFailure:
        """The error that RabbitMQ sends before it closes the connection."""
        words = " ".join(body_of(frame).decode(errors="replace").split())
        text = f"{frame.headers.get('message', '')}: {words}"
        if "Access refused" in words:
            return LoginRefused(
                f"RabbitMQ at {self._where} refused user {self._settings.user!r}: wrong user name or password"
            )
        if "access denied" in words or "ACCESS_REFUSED" in words:
            return AccessRefused(
                f"user {self._settings.user!r} may not do this in virtual host {self._settings.vhost!r}, or it does "
                f"not exist; check RABBITMQ_VHOST or AMQP_URL ({text})"
            )
        if "canceled a subscription" in words or "shutting down" in words or "CONNECTION_FORCED" in words:
            return ConnectionLost(f"RabbitMQ has ended the subscription or the connection ({text})")
        return ChannelFailure(f"RabbitMQ at {self._where} refused: {text}")


def body_of(frame: Frame) -> bytes:
    """A frame's body as it came."""
    body = frame.body
    return body.encode() if isinstance(body, str) else body or b""


class _Connection(Connection12):
    """A broken connection is one error: stomp.py lets the socket's own through, if that is the first to notice."""

    def send_frame(self, cmd: str, headers: dict[str, str] | None = None, body: str | bytes = "") -> None:
        try:
            super().send_frame(cmd, headers, body)
        except OSError as error:
            raise NotConnectedException from error


@contextmanager
def connected(settings: Settings) -> Iterator[Link]:
    """A Link to the first address that answers. Raises a ConnectionFailure whose text is one readable line."""
    # It would log the errors that we raise.
    logging.getLogger("stomp.py").setLevel(logging.CRITICAL + 1)
    link = reach(settings, lambda address: _open(settings, address), port=settings.stomp_port, service=SERVICE)
    try:
        yield link
    except NotConnectedException:
        raise ConnectionLost("the STOMP connection is lost") from None
    finally:
        link.close()


def _open(settings: Settings, where: Address) -> Link:
    beat = settings.heartbeat * 1000
    stomp = _Connection(
        [(where.host, where.port)],
        # STOMP names the virtual host as the host that one wants to talk to.
        vhost=settings.vhost,
        heartbeats=(beat, beat),
        reconnect_attempts_max=1,
        timeout=min(ANSWER_SECONDS, settings.connect_timeout),
        # A body is bytes; only its reader knows what they are.
        auto_decode=False,
    )
    if settings.tls:
        stomp.set_ssl(
            [(where.host, where.port)],
            ca_certs=settings.tls.ca_file,
            cert_file=settings.tls.cert_file,
            key_file=settings.tls.key_file,
            # This one checks the certificate and the host's name.
            ssl_version=ssl.PROTOCOL_TLS_CLIENT,
        )
    link = Link(stomp, settings, where)
    stomp.set_listener("link", link)
    try:
        stomp.connect(settings.user, settings.password)
        link.wait_for_connection()
    except (ConnectFailedException, NotConnectedException):
        _connect_without_stomp(where, settings)
        raise NotStomp(f"what answers at {where} closed the connection; expected {SERVICE}") from None
    except ConnectionFailure:
        link.close()
        raise
    return link


def _connect_without_stomp(where: Address, settings: Settings) -> None:
    """Raise the error of the socket or of TLS, if it was one: stomp.py does not say."""
    with socket.create_connection((where.host, where.port), min(ANSWER_SECONDS, settings.connect_timeout)) as plain:
        if context := tls_context(settings):
            context.wrap_socket(plain, server_hostname=where.host).close()


@contextmanager
def until_stopped() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what is in hand can be finished; a second one leaves at once."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
