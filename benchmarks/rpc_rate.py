"""robust_pika.RpcClient against the tutorial's way of remote procedure calls, on the broker of the settings.

The tutorial's way, of which this file has a copy: the client declares an exclusive queue for its replies, sends one
request at a time and waits for the reply with process_data_events; no deadline, and no second try when the connection
breaks. Its server takes one request at a time.

The library's way: RpcClient, one call at a time and with many in flight. Its server is robust_pika.consume with a
prefetch of as many.

Each server is a process. All clients ask for fib(5). They take turns, so that other load on the machine slows all of
them. Prints the calls per second of each round and the medians of the ratios: to the tutorial's client as it is run (a
new client, with a new connection and a new reply queue, for each call), and to one that is kept for all calls:

    python benchmarks/rpc_rate.py [--rounds 5] [--calls 1000]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from common import console
from common.config import Settings
from common.connection import connect
from robust_pika import Answer, Call, DeclaringChannel, Message, RpcClient, consume

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL, LIBRARY = SERVERS = ("tutorial", "library")
NUMBER = 5
ANSWER = 5
IN_FLIGHT = 100
DEADLINE = 60.0


def queue_of(server: str) -> str:
    """The queue of requests to this server."""
    return f"benchmarks.rpc_rate.{server}"


def fib(number: int) -> int:
    return number if number < 2 else fib(number - 1) + fib(number - 2)


# The tutorial's way


def tutorial_server(settings: Settings) -> None:
    """Serve until killed."""

    def on_request(channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        reply = str(fib(int(body)))
        own = BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to or "", reply.encode(), own)
        channel.basic_ack(method.delivery_tag)

    with connect("tutorial's server", settings) as connection:
        channel = connection.channel()
        # Durable, because RabbitMQ 4.3 refuses it otherwise. The messages are transient, so that costs nothing.
        channel.queue_declare(queue_of(TUTORIAL), durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue_of(TUTORIAL), on_request)
        console.say("Waiting")
        channel.start_consuming()


class TutorialClient:
    """One reply queue, one call at a time."""

    def __init__(self, settings: Settings) -> None:
        self.connection = connect("tutorial's client", settings)
        self.channel = self.connection.channel()
        self.replies = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.basic_consume(self.replies, self.on_reply, auto_ack=True)
        self.call_id = ""
        self.reply: bytes | None = None

    def on_reply(self, _channel: BlockingChannel, _method: object, properties: BasicProperties, body: bytes) -> None:
        if properties.correlation_id == self.call_id:
            self.reply = body

    def call(self, number: int) -> int:
        self.reply = None
        self.call_id = str(uuid.uuid4())
        own = BasicProperties(reply_to=self.replies, correlation_id=self.call_id)
        self.channel.basic_publish("", queue_of(TUTORIAL), str(number).encode(), own)
        while self.reply is None:
            self.connection.process_data_events(time_limit=30)
        return int(self.reply)


def tutorial_new_client(settings: Settings, calls: int) -> float:
    """Calls per second, with a new client for each call."""
    start = time.perf_counter()
    for _ in range(calls):
        client = TutorialClient(settings)
        assert client.call(NUMBER) == ANSWER
        client.connection.close()
    return calls / (time.perf_counter() - start)


def tutorial_kept_client(settings: Settings, calls: int) -> float:
    """Calls per second, with one client for all calls."""
    client = TutorialClient(settings)
    with client.connection:
        start = time.perf_counter()
        for _ in range(calls):
            assert client.call(NUMBER) == ANSWER
        return calls / (time.perf_counter() - start)


# The library's way


def library_server(settings: Settings) -> None:
    """Serve until killed."""

    def declare(channel: DeclaringChannel) -> str:
        channel.queue_declare(queue_of(LIBRARY), durable=True)
        return queue_of(LIBRARY)

    def serve(message: Message) -> Answer:
        asked = message.properties
        reply = BasicProperties(correlation_id=asked.correlation_id, delivery_mode=DeliveryMode.Transient)
        return Answer(asked.reply_to or "", b"%d" % fib(int(message.body)), reply)

    consume(
        "library's server",
        settings,
        declare,
        serve,
        prefetch=IN_FLIGHT,
        on_ready=lambda _queue: console.say("Waiting"),
    )


def library_client(settings: Settings, calls: int, in_flight: int) -> float:
    """Calls per second, with one client for all calls and so many in flight at once."""
    body = b"%d" % NUMBER
    waiting: deque[Call] = deque()
    with RpcClient("library's client", settings) as client:

        def finish() -> None:
            assert int(client.wait(waiting.popleft()).body) == ANSWER

        start = time.perf_counter()
        for _ in range(calls):
            if len(waiting) == in_flight:
                finish()
            # What is held back is sent by the next wait, together with the others.
            waiting.append(client.send(queue_of(LIBRARY), body, deadline=DEADLINE, hold=True))
        while waiting:
            finish()
        return calls / (time.perf_counter() - start)


@contextmanager
def servers(environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """Both servers, each a process, ready; they are ended afterwards. ``environ`` is their environment."""
    with ExitStack() as stack:
        for server in SERVERS:
            command = [sys.executable, str(Path(__file__).resolve()), "--server", server]
            process = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.terminate)
            assert process.stdout is not None
            if "Waiting" not in process.stdout.readline():
                raise SystemExit(f"the {server}'s server did not start")
        yield


def measure(settings: Settings, rounds: int, calls: int) -> None:
    to_new: list[tuple[float, float]] = []
    to_kept: list[tuple[float, float]] = []
    for number in range(1, rounds + 1):
        new = tutorial_new_client(settings, max(1, calls // 20))
        kept = tutorial_kept_client(settings, calls)
        single, many = library_client(settings, calls, 1), library_client(settings, calls * 5, IN_FLIGHT)
        to_new.append((single / new, many / new))
        to_kept.append((single / kept, many / kept))
        console.say(
            f"round {number}: tutorial, new client {new:,.0f}/s, kept client {kept:,.0f}/s; "
            f"RpcClient, one at a time {single:,.0f}/s, {IN_FLIGHT} in flight {many:,.0f}/s"
        )
    for name, ratios in (("a new client for each call", to_new), ("a kept client", to_kept)):
        single, many = (statistics.median(column) for column in zip(*ratios, strict=True))
        console.say(f"median ratio to the tutorial with {name}: x {single:.1f} one at a time, x {many:.1f} in flight")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--rounds", type=console.whole(1, 1000), default=5, help="how often each has its turn")
    parser.add_argument("--calls", type=console.whole(1, 100_000), default=1000, help="in flight, five times as many")
    parser.add_argument("--server", choices=SERVERS, help="only serve, until Ctrl-C")
    arguments = parser.parse_args()
    settings = Settings.load()
    if arguments.server:
        {TUTORIAL: tutorial_server, LIBRARY: library_server}[arguments.server](settings)
        return
    with servers():
        measure(settings, arguments.rounds, arguments.calls)
    with connect("clean up", settings) as connection:
        for server in SERVERS:
            connection.channel().queue_delete(queue_of(server))


if __name__ == "__main__":
    console.run(main)
