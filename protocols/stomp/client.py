"""STOMP with our settings, through stomp.py, and what goes wrong there as one readable line.

stomp.py reads on a thread of its own and tells a listener what comes. The Link is that listener: it puts everything
into one queue, and the thread that waits takes it out, or raises what it means.
"""

import itertools
import logging
import queue
import random
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from common import console
from common.config import Address, Settings
from common.errors import ExitCode
from common.optional import packages_for
from robust_pika._io.session import LINGER_SECONDS
from robust_pika.connecting import tls_context
from robust_pika.errors import (
    AccessRefused,
    BrokerUnavailable,
    ChannelFailure,
    ConnectionFailure,
    HostNotFound,
    NotTaken,
    TlsFailure,
)

with packages_for(__file__):
    from stomp import Connection12, ConnectionListener
    from stomp.exception import ConnectFailedException, NotConnectedException, StompException
    from stomp.utils import Frame

GOODBYE_SECONDS = 5.0
POLL_SECONDS = 0.2
IN_FLIGHT = 100
"""Messages whose receipts we have not got yet."""


class NotStomp(ConnectionFailure):
    """Something answers at the port, but it does not speak STOMP."""

    exit_code = ExitCode.PROTOCOL


class Disconnected(ConnectionFailure):
    """A connection that worked is lost."""

    transient = True


class Link(ConnectionListener):
    """One connection: ``stomp`` is stomp.py's, for sending and acknowledging; what comes is waited for here."""

    def __init__(self, stomp: Connection12, settings: Settings) -> None:
        self.stomp = stomp
        self._settings = settings
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
                raise NotTaken("RabbitMQ does not send the receipts; is it in a memory or disk alarm?")

    def messages(self, stop: threading.Event) -> Iterator[Frame]:
        """One message after the other, as they come, until told to stop.

        Raises Disconnected, or what RabbitMQ has against us.
        """
        while not stop.is_set():
            if self._messages:
                yield self._messages.popleft()
            else:
                self._take(POLL_SECONDS)
        # The acknowledgements need a moment to reach a quorum queue; see there.
        time.sleep(LINGER_SECONDS)

    def wait_for_connection(self, where: Address) -> None:
        """Return when RabbitMQ has let us in."""
        try:
            if not self._take(self._settings.connect_timeout):
                raise NotStomp(f"what answers at {where} does not speak STOMP; see RABBITMQ_STOMP_PORT")
        except Disconnected:
            raise NotStomp(
                f"what answers at {where} closed the connection; STOMP's port is 61613 (61614 with TLS), "
                "see RABBITMQ_STOMP_PORT"
            ) from None

    def close(self) -> None:
        """Say goodbye, and wait a moment for the answer: what was sent before has then arrived."""
        goodbye = "goodbye"
        self._receipts = {goodbye}
        deadline = time.monotonic() + GOODBYE_SECONDS
        # If there is no connection any more, there is nothing to wait for.
        with suppress(StompException, OSError, ConnectionFailure):
            self.stomp.send_frame("DISCONNECT", {"receipt": goodbye})
            while self._receipts and self._take(deadline - time.monotonic()):
                pass
        self.stomp.remove_listener("link")
        with suppress(StompException, OSError):
            self.stomp.transport.disconnect_socket()

    def _take(self, seconds: float) -> bool:
        """Deal with one thing that comes within so many seconds; False if nothing does."""
        try:
            frame = self._coming.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return False
        if frame is None:
            raise Disconnected("the STOMP connection is lost")
        if frame.cmd == "ERROR":
            raise self._refused(frame)
        if frame.cmd == "MESSAGE":
            self._messages.append(frame)
        self._receipts.discard(frame.headers.get("receipt-id", ""))
        return True

    def _refused(self, frame: Frame) -> ConnectionFailure:
        """What RabbitMQ says before it hangs up."""
        where = Address(self._settings.addresses[0].host, self._settings.stomp_port)
        words = " ".join(body_of(frame).decode(errors="replace").split())
        text = f"{frame.headers.get('message', '')}: {words}"
        if "Access refused" in words:
            return AccessRefused(
                f"RabbitMQ at {where} refused user {self._settings.user!r}: wrong user name or password; "
                "check RABBITMQ_USER and RABBITMQ_PASSWORD or AMQP_URL"
            )
        if "access denied" in words or "ACCESS_REFUSED" in words:
            return AccessRefused(
                f"user {self._settings.user!r} may not do this in virtual host {self._settings.vhost!r}, or it does "
                f"not exist; check RABBITMQ_VHOST or AMQP_URL ({text})"
            )
        if "canceled a subscription" in words or "shutting down" in words or "CONNECTION_FORCED" in words:
            return Disconnected(f"RabbitMQ has ended the subscription or the connection ({text})")
        return ChannelFailure(f"RabbitMQ at {where} refused: {text}")


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
    # It would log what we tell.
    logging.getLogger("stomp.py").setLevel(logging.CRITICAL + 1)
    link = _open(settings)
    try:
        yield link
    except NotConnectedException:
        raise Disconnected("the STOMP connection is lost") from None
    finally:
        link.close()


def _open(settings: Settings) -> Link:
    failure: ConnectionFailure | None = None
    beat = settings.heartbeat * 1000
    for address in settings.addresses:
        where = Address(address.host, settings.stomp_port)
        stomp = _Connection(
            [(where.host, where.port)],
            # STOMP names the virtual host as the host that one wants to talk to.
            vhost=settings.vhost,
            heartbeats=(beat, beat),
            reconnect_attempts_max=1,
            timeout=settings.connect_timeout,
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
        link = Link(stomp, settings)
        stomp.set_listener("link", link)
        try:
            stomp.connect(settings.user, settings.password)
            link.wait_for_connection(where)
        except (ConnectFailedException, NotConnectedException):
            failure = why(where, settings)
        except ConnectionFailure as error:
            failure = error
            link.close()
        else:
            return link
    assert failure is not None
    raise failure


def why(where: Address, settings: Settings) -> ConnectionFailure:
    """Why we cannot connect. stomp.py does not tell, so it is tried once more, without it."""
    try:
        with socket.create_connection((where.host, where.port), settings.connect_timeout) as plain:
            if context := tls_context(settings):
                context.wrap_socket(plain, server_hostname=where.host).close()
    except socket.gaierror:
        return HostNotFound(f"no address is known for {where}; check RABBITMQ_HOST or AMQP_URL")
    except ssl.SSLCertVerificationError as error:
        return TlsFailure(
            f"the certificate of {where} cannot be trusted ({error.verify_message}); set RABBITMQ_CA_FILE"
        )
    except ssl.SSLError as error:
        return TlsFailure(f"TLS with {where} failed ({error.reason}); is it the STOMP port with TLS (61614)?")
    except ConnectionRefusedError:
        return BrokerUnavailable(
            f"nothing answers at {where}, the STOMP port; start RabbitMQ with: make broker, "
            "or rabbitmq-plugins enable rabbitmq_stomp, or set RABBITMQ_STOMP_PORT"
        )
    except OSError as error:
        return BrokerUnavailable(f"RabbitMQ's STOMP port {where} cannot be reached: {error.strerror or error}")
    return NotStomp(f"what answers at {where} closed the connection; see RABBITMQ_STOMP_PORT")


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


def persistently(settings: Settings, session: Callable[[], None], stop: threading.Event) -> None:
    """Call ``session``, and again each time a connection that had worked is lost, until told to stop.

    To connect again is tried for ``settings.reconnect_timeout`` seconds. Raises what ``session`` raised last.
    """
    deadline: float | None = None
    while not stop.is_set():
        try:
            session()
            return
        except Disconnected as failure:
            deadline = time.monotonic() + settings.reconnect_timeout
            console.warn(f"{failure}; connecting again")
        except ConnectionFailure as failure:
            if not failure.transient or deadline is None or time.monotonic() > deadline:
                raise
        # At random, so that not all the clients of a restarted broker come at once.
        stop.wait(random.uniform(0.1, 1.0))
