"""A thin client of RabbitMQ's HTTP API (the management plugin): what is there, and setting it up.

What it counts (messages, rates, consumers of the lists) is sampled by the broker and lags by some seconds: to
wait for a number, ask again. For an exact depth now, declare the queue passively over AMQP.
"""

from __future__ import annotations

import html
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

import httpx

from common.config import Settings
from common.errors import ExitCode, Failure
from robust_pika.connecting import tls_context

Json = dict[str, Any]

_IN_VHOST = frozenset(("queues", "exchanges", "bindings", "consumers", "policies", "definitions", "permissions"))

_REPEATABLE = frozenset(("GET", "PUT"))
"""What may be sent once more if the connection breaks; a second DELETE would not find what the first one removed."""


class ManagementFailure(Failure):
    """The HTTP API refused a request for a reason of its own, which the text quotes."""

    exit_code = ExitCode.PROTOCOL


class ManagementUnavailable(ManagementFailure):
    """Nobody answers at the API's address, or not in time."""

    exit_code = ExitCode.UNAVAILABLE


class ManagementAccessRefused(ManagementFailure):
    """Wrong user or password, or a user without the tag or permission for this."""

    exit_code = ExitCode.ACCESS


class NotFound(ManagementFailure):
    """What was asked for is not there."""

    exit_code = ExitCode.NO_VHOST


class NoVhost(NotFound):
    """The virtual host is not there."""


class NotManagement(ManagementFailure):
    """Something answers, but it is not RabbitMQ's HTTP API."""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue. ``details`` is all that the API says of it; the counts are in messages and lag by some seconds."""

    name: str
    vhost: str
    type: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Json
    state: str
    policy: str
    messages: int
    ready: int
    unacknowledged: int
    consumers: int
    details: Json = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """An exchange; the default exchange has an empty name."""

    name: str
    vhost: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Json


@dataclass(frozen=True, slots=True)
class BindingInfo:
    """A binding from exchange ``source`` to ``destination``, which is a "queue" or an "exchange"."""

    source: str
    destination: str
    destination_type: str
    routing_key: str
    vhost: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A client's connection: ``name`` identifies it in the API, ``label`` is what the client calls itself."""

    name: str
    label: str
    user: str
    vhost: str
    state: str
    protocol: str
    channels: int
    details: Json = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel; ``connection`` is the API's name of its connection, ``prefetch`` and the counts are in messages."""

    name: str
    connection: str
    number: int
    user: str
    vhost: str
    consumers: int
    prefetch: int
    unacknowledged: int
    unconfirmed: int
    details: Json = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """A consumer of a queue; ``connection`` is the API's name of its connection, ``prefetch`` is in messages."""

    tag: str
    queue: str
    vhost: str
    connection: str
    prefetch: int
    exclusive: bool
    active: bool
    arguments: Json


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster, with the alarms that make it hold back publishers."""

    name: str
    running: bool
    memory_alarm: bool
    disk_alarm: bool
    details: Json = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class VhostInfo:
    """A virtual host; ``tracing`` says whether its firehose is on."""

    name: str
    tracing: bool
    description: str
    details: Json = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """A policy: ``definition`` goes to what ``pattern`` (a regular expression) matches among ``apply_to``."""

    name: str
    vhost: str
    pattern: str
    apply_to: str
    definition: Json
    priority: int


class Management:
    """The HTTP API of the broker that ``settings`` names; use it with ``with``, or close() it.

    A ``vhost`` of None means that of the settings. ``timeout`` is in seconds, for each request.
    Every method raises a ManagementFailure: one readable line, without the password.
    """

    def __init__(self, settings: Settings, *, timeout: float = 10.0) -> None:
        url = httpx.URL(settings.management_url)
        user = unquote(url.username) or settings.user
        password = unquote(url.password) if url.username else settings.password
        self.vhost = settings.vhost
        self.user = user
        # Credentials in the URL are used, and then kept out of every text.
        self.url = str(url.copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")
        verify: ssl.SSLContext | bool = (tls_context(settings) or True) if url.scheme == "https" else False
        self._client = httpx.Client(
            auth=httpx.BasicAuth(user, password),
            timeout=httpx.Timeout(timeout, connect=min(timeout, settings.connect_timeout)),
            verify=verify,
            # A proxy of the environment is for the web, not for the broker next door.
            trust_env=False,
        )

    def __enter__(self) -> Management:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the API; closing twice does no harm."""
        self._client.close()

    def request(
        self, method: str, *path: str, body: Any = None, headers: Mapping[str, str] | None = None, **query: str | int
    ) -> Any:
        """Ask for ``/api/<path>`` and return its JSON (None for an empty answer); for what has no method here.

        Each element of ``path`` is one segment, as it is: "/" and UTF-8 are quoted.
        """
        url = "/".join([self.url, "api", *map(_segment, path)])

        def send() -> httpx.Response:
            return self._client.request(method, url, json=body, headers=headers, params=query or None)

        try:
            try:
                answer = send()
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A kept connection may be closed just as it is used again: RFC 9110, 9.2.2 and RFC 9112, 9.3.1.
                if method not in _REPEATABLE:
                    raise
                answer = send()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        return self._read(answer, path)

    # The broker

    def ping(self) -> None:
        """Return if the API answers and knows the user; raise otherwise."""
        self.request("GET", "whoami")

    def overview(self) -> Json:
        """The broker's versions, listeners, object totals and message rates."""
        return self._object("overview")

    def version(self) -> str:
        """RabbitMQ's version, such as "4.3.6"."""
        return str(self.overview().get("rabbitmq_version", ""))

    def nodes(self) -> list[NodeInfo]:
        """The nodes of the cluster."""
        return [
            NodeInfo(
                item["name"],
                bool(item.get("running")),
                bool(item.get("mem_alarm")),
                bool(item.get("disk_free_alarm")),
                item,
            )
            for item in self._list("nodes")
        ]

    def alarms(self) -> list[str]:
        """The memory and disk alarms in effect, such as "memory alarm on rabbit@host"; empty when all is well."""
        return [
            f"{what} alarm on {node.name}"
            for node in self.nodes()
            for what, on in (("memory", node.memory_alarm), ("disk", node.disk_alarm))
            if on
        ]

    def definitions(self, vhost: str | None = None) -> Json:
        """Exchanges, queues, bindings and policies of one virtual host, as JSON that import_definitions takes.

        RabbitMQ 4.3 breaks off in the middle if the virtual host's name is not ASCII.
        """
        return self._object("definitions", self._vhost(vhost))

    def import_definitions(self, definitions: Json, vhost: str | None = None) -> None:
        """Create what ``definitions`` describes; what is there already stays."""
        self.request("POST", "definitions", self._vhost(vhost), body=definitions)

    # Virtual hosts, users, permissions

    def vhosts(self) -> list[VhostInfo]:
        """The virtual hosts that the user may see."""
        # One that is just being deleted is a row of counters without a name.
        return [_vhost_info(item) for item in self._list("vhosts") if "name" in item]

    def get_vhost(self, name: str | None = None) -> VhostInfo:
        """One virtual host. Raises NoVhost if it is not there."""
        return _vhost_info(self._object("vhosts", self._vhost(name)))

    def create_vhost(self, name: str, description: str = "") -> None:
        """Create a virtual host, with all permissions in it for the user; creating it twice does no harm."""
        self.request("PUT", "vhosts", name, body={"description": description})
        self.set_permissions(self.user, name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with everything in it. Raises NoVhost if it is not there."""
        self.request("DELETE", "vhosts", name)

    def set_tracing(self, on: bool, vhost: str | None = None) -> None:
        """Turn the firehose on or off: a copy of every message to the topic exchange ``amq.rabbitmq.trace``.

        Raises NoVhost if the virtual host is not there.
        """
        # The API would create a missing virtual host, and would forget a description that is not sent along.
        found = self.get_vhost(vhost)
        keep = {key: found.details[key] for key in ("description", "tags") if found.details.get(key)}
        self.request("PUT", "vhosts", found.name, body={**keep, "tracing": on})

    def create_user(self, name: str, password: str, tags: str = "") -> None:
        """Create a user, or change its password; ``tags`` such as "monitoring" or "administrator"."""
        self.request("PUT", "users", name, body={"password": password, "tags": tags})

    def delete_user(self, name: str) -> None:
        """Delete a user."""
        self.request("DELETE", "users", name)

    def set_permissions(
        self, user: str, vhost: str | None = None, *, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Let ``user`` do to names that match these regular expressions what they are called."""
        body = {"configure": configure, "write": write, "read": read}
        self.request("PUT", "permissions", self._vhost(vhost), user, body=body)

    # What is in a virtual host

    def queue(self, name: str, vhost: str | None = None) -> QueueInfo:
        """One queue. Raises NotFound if it is not there, NoVhost if its virtual host is not."""
        return _queue_info(self._object("queues", self._vhost(vhost), name))

    def queues(self, vhost: str | None = None) -> list[QueueInfo]:
        """The queues of a virtual host."""
        return [_queue_info(item) for item in self._list("queues", self._vhost(vhost))]

    def purge_queue(self, name: str, vhost: str | None = None) -> None:
        """Throw away the messages that are ready (those in the hands of consumers stay)."""
        self.request("DELETE", "queues", self._vhost(vhost), name, "contents")

    def delete_queue(self, name: str, vhost: str | None = None) -> None:
        """Delete a queue with its messages."""
        self.request("DELETE", "queues", self._vhost(vhost), name)

    def exchanges(self, vhost: str | None = None) -> list[ExchangeInfo]:
        """The exchanges of a virtual host, RabbitMQ's own included."""
        return [
            ExchangeInfo(
                item["name"],
                item["vhost"],
                item["type"],
                item["durable"],
                item["auto_delete"],
                item["internal"],
                item["arguments"],
            )
            for item in self._list("exchanges", self._vhost(vhost))
        ]

    def delete_exchange(self, name: str, vhost: str | None = None) -> None:
        """Delete an exchange with its bindings."""
        self.request("DELETE", "exchanges", self._vhost(vhost), name)

    def bindings(self, vhost: str | None = None) -> list[BindingInfo]:
        """The bindings of a virtual host, those of the default exchange included."""
        return [
            BindingInfo(
                item["source"],
                item["destination"],
                item["destination_type"],
                item["routing_key"],
                item["vhost"],
                item["arguments"],
            )
            for item in self._list("bindings", self._vhost(vhost))
        ]

    def consumers(self, vhost: str | None = None) -> list[ConsumerInfo]:
        """The consumers of a virtual host."""
        return [
            ConsumerInfo(
                item["consumer_tag"],
                item["queue"]["name"],
                item["queue"]["vhost"],
                _channel_details(item).get("connection_name", ""),
                item.get("prefetch_count", 0),
                bool(item.get("exclusive")),
                bool(item.get("active", True)),
                _arguments(item),
            )
            for item in self._list("consumers", self._vhost(vhost))
        ]

    def policies(self, vhost: str | None = None) -> list[PolicyInfo]:
        """The policies of a virtual host."""
        return [
            PolicyInfo(
                item["name"], item["vhost"], item["pattern"], item["apply-to"], item["definition"], item["priority"]
            )
            for item in self._list("policies", self._vhost(vhost))
        ]

    def set_policy(
        self,
        name: str,
        pattern: str,
        definition: Json,
        *,
        apply_to: str = "all",
        priority: int = 0,
        vhost: str | None = None,
    ) -> None:
        """Give ``definition`` (such as ``{"max-length": 10}``) to everything whose name matches ``pattern``."""
        body = {"pattern": pattern, "definition": definition, "apply-to": apply_to, "priority": priority}
        self.request("PUT", "policies", self._vhost(vhost), name, body=body)

    def delete_policy(self, name: str, vhost: str | None = None) -> None:
        """Delete a policy."""
        self.request("DELETE", "policies", self._vhost(vhost), name)

    # Who is connected

    def connections(self, vhost: str | None = None) -> list[ConnectionInfo]:
        """The connections to a virtual host. A new one appears after some seconds."""
        return [_connection_info(item) for item in self._list("vhosts", self._vhost(vhost), "connections")]

    def channels(self, vhost: str | None = None) -> list[ChannelInfo]:
        """The channels in a virtual host. A new one appears after some seconds."""
        return [_channel_info(item) for item in self._list("vhosts", self._vhost(vhost), "channels")]

    def close_connection(self, name: str, reason: str = "closed through the management API") -> None:
        """Close the connection that the API calls ``name``; its client is told ``reason`` (320 CONNECTION_FORCED)."""
        # The reason travels in a header: one line of ASCII.
        line = " ".join(reason.split()).encode("ascii", "replace").decode()
        self.request("DELETE", "connections", name, headers={"X-Reason": line})

    # How all of them ask and read

    def _vhost(self, vhost: str | None) -> str:
        return self.vhost if vhost is None else vhost

    def _object(self, *path: str) -> Json:
        answer = self.request("GET", *path)
        if not isinstance(answer, dict):
            raise self._not_management()
        return answer

    def _list(self, *path: str) -> list[Json]:
        answer = self.request("GET", *path)
        if not isinstance(answer, list):
            raise self._not_management()
        return answer

    def _not_management(self, silent: bool = False) -> NotManagement:
        if silent:
            return NotManagement(
                f"what listens at {self.url} hangs up without an answer: RabbitMQ is starting or stopping, or this is "
                "not its HTTP API; check RABBITMQ_MANAGEMENT_URL"
            )
        return NotManagement(
            f"what answers at {self.url} is not RabbitMQ's HTTP API; check RABBITMQ_MANAGEMENT_URL, "
            "and that the rabbitmq_management plugin is enabled"
        )

    def _unreachable(self, error: Exception) -> ManagementFailure:
        text = str(error)
        if isinstance(error, httpx.TimeoutException):
            return ManagementUnavailable(f"the management API at {self.url} did not answer in time")
        if isinstance(error, (httpx.ProtocolError, httpx.InvalidURL, httpx.DecodingError, httpx.UnsupportedProtocol)):
            return self._not_management(silent="without sending a response" in text)
        if isinstance(error, (httpx.ReadError, httpx.WriteError)):
            return ManagementUnavailable(
                f"the connection to the management API at {self.url} broke ({text or type(error).__name__}); "
                "did RabbitMQ stop, or is this another port of it? check RABBITMQ_MANAGEMENT_URL"
            )
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ManagementFailure(f"the certificate of {self.url} cannot be trusted; set RABBITMQ_CA_FILE ({text})")
        if "SSL" in text:
            return ManagementFailure(f"TLS with {self.url} failed ({text}); is it http:// rather than https://?")
        return ManagementUnavailable(
            f"the management API at {self.url} cannot be reached ({text or type(error).__name__}); "
            "start RabbitMQ with: make broker, or check RABBITMQ_MANAGEMENT_URL"
        )

    def _read(self, answer: httpx.Response, path: tuple[str, ...]) -> Any:
        reason = _reason(answer)
        what = " ".join(path)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise ManagementAccessRefused(
                f"the management API at {self.url} refused user {self.user!r} ({reason}): wrong user name or password, "
                "or no permission; check RABBITMQ_USER and RABBITMQ_PASSWORD or AMQP_URL"
            )
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise ManagementAccessRefused(f"user {self.user!r} may not {answer.request.method} {what}: {reason}")
        if not _is_api(answer):
            raise self._not_management()
        if answer.status_code == httpx.codes.NOT_FOUND or reason == "vhost_not_found":
            raise self._missing(path)
        if not answer.is_success:
            raise ManagementFailure(
                f"the management API at {self.url} refused to {answer.request.method} {what}: "
                f"{answer.status_code} {reason}"
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise ManagementFailure(
                f"the management API at {self.url} sent broken JSON when asked to {answer.request.method} {what}"
            ) from None

    def _missing(self, path: tuple[str, ...]) -> NotFound:
        """Which part of ``path`` is not there: the API answers the same for a queue and for its virtual host."""
        kind, *names = path
        if kind == "connections":
            return NotFound(f"connection {names[0]!r} is not there (any more)")
        if kind == "vhosts" or (kind in _IN_VHOST and len(names) == 1):
            return NoVhost(
                f"virtual host {names[0]!r} does not exist at {self.url}, or user {self.user!r} may not see it; "
                "create it, or check RABBITMQ_VHOST or AMQP_URL"
            )
        if kind in _IN_VHOST:
            # The same answer again, if it is the virtual host that is missing.
            self.exchanges(names[0])
            singular = "policy" if kind == "policies" else kind.removesuffix("s")
            return NotFound(f"{singular} {names[1]!r} does not exist in virtual host {names[0]!r} at {self.url}")
        if kind == "users" and names:
            return NotFound(f"user {names[0]!r} does not exist at {self.url}")
        return NotFound(f"the management API at {self.url} has no {'/'.join(path)!r}")


def _segment(name: str) -> str:
    # An HTTP client takes "." and ".." as steps in a path, and an empty name would address the list it is in.
    if name in ("", ".", ".."):
        raise ManagementFailure(f"the management API has no address for the name {name!r}")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise ManagementFailure(f"the name {name!a} is not valid UTF-8") from None


def _is_api(answer: httpx.Response) -> bool:
    """Whether this can be RabbitMQ's answer: JSON, or one without content."""
    return not answer.content or answer.headers.get("content-type", "").startswith("application/json")


def _reason(answer: httpx.Response) -> str:
    try:
        told = answer.json()
    except ValueError:
        return answer.reason_phrase
    reason = told.get("reason") if isinstance(told, dict) else None
    # 3.x escapes it for HTML; both spread it over several lines.
    return " ".join(html.unescape(str(reason)).split()) if reason else answer.reason_phrase


def _arguments(item: Json) -> Json:
    # An empty table comes as an empty list.
    return item.get("arguments") or {}


def _channel_details(item: Json) -> Json:
    return item.get("channel_details") or {}


def _queue_info(item: Json) -> QueueInfo:
    # A queue younger than the first sample has no counts, one whose node is down has hardly anything.
    return QueueInfo(
        name=item["name"],
        vhost=item["vhost"],
        type=item.get("type", ""),
        durable=bool(item.get("durable")),
        exclusive=bool(item.get("exclusive")),
        auto_delete=bool(item.get("auto_delete")),
        arguments=_arguments(item),
        state=item.get("state", ""),
        policy=item.get("policy") or "",
        messages=item.get("messages", 0),
        ready=item.get("messages_ready", 0),
        unacknowledged=item.get("messages_unacknowledged", 0),
        consumers=item.get("consumers", 0),
        details=item,
    )


def _connection_info(item: Json) -> ConnectionInfo:
    return ConnectionInfo(
        name=item["name"],
        label=item.get("user_provided_name") or "",
        user=item.get("user", ""),
        vhost=item.get("vhost", ""),
        state=item.get("state", ""),
        protocol=str(item.get("protocol", "")),
        channels=item.get("channels", 0),
        details=item,
    )


def _channel_info(item: Json) -> ChannelInfo:
    return ChannelInfo(
        name=item["name"],
        connection=(item.get("connection_details") or {}).get("name", ""),
        number=item.get("number", 0),
        user=item.get("user", ""),
        vhost=item.get("vhost", ""),
        consumers=item.get("consumer_count", 0),
        prefetch=item.get("prefetch_count", 0),
        unacknowledged=item.get("messages_unacknowledged", 0),
        unconfirmed=item.get("messages_unconfirmed", 0),
        details=item,
    )


def _vhost_info(item: Json) -> VhostInfo:
    return VhostInfo(item["name"], bool(item.get("tracing")), item.get("description") or "", item)
