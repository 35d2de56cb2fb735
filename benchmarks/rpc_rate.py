"""rpc/ against the tutorial's way of remote procedure calls, on the broker of the settings.

The tutorial's way, of which this file has its own copy: the client declares an exclusive queue for its replies, asks
one question at a time and looks for the reply with process_data_events; nothing is confirmed, has a deadline or
survives a broken connection; the server, a process of its own, takes one request at a time. Ours: rpc_server.py and
rpc_client.py as they are, one call at a time and then many in flight. All of them ask for fib(5), and print nothing
meanwhile. They take turns, so that whatever else the machine does hits all.

Prints the calls per second of each round and the medians of the ratios, to the tutorial's client as it is run (a new
one, and so a new connection and reply queue, for each question) and to one that is kept and asks again and again:

    python benchmarks/rpc_rate.py [--rounds 5] [--calls 1000]
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from common import console
from common.config import Settings
from common.connection import connect

ROOT = Path(__file__).resolve().parents[1]
QUEUE = "benchmarks.rpc_rate"
NUMBER = 5
ANSWER = 5
IN_FLIGHT = 100


def fib(number: int) -> int:
    return number if number < 2 else fib(number - 1) + fib(number - 2)


def tutorial_server(settings: Settings) -> None:
    """Serve until killed."""

    def on_request(channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        reply = str(fib(int(body)))
        own = BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to or "", reply.encode(), own)
        channel.basic_ack(method.delivery_tag)

    with connect("tutorial's server", settings) as connection:
        channel = connection.channel()
        # Durable, because RabbitMQ 4.3 refuses it otherwise; the messages are not, so that it costs nothing.
        channel.queue_declare(QUEUE, durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(QUEUE, on_request)
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
        self.channel.basic_publish("", QUEUE, str(number).encode(), own)
        while self.reply is None:
            self.connection.process_data_events(time_limit=30)
        return int(self.reply)


def tutorial_new_client(settings: Settings, calls: int) -> float:
    """Calls per second, a client for each."""
    start = time.perf_counter()
    for _ in range(calls):
        client = TutorialClient(settings)
        assert client.call(NUMBER) == ANSWER
        client.connection.close()
    return calls / (time.perf_counter() - start)


def tutorial_kept_client(settings: Settings, calls: int) -> float:
    """Calls per second, one client for all."""
    client = TutorialClient(settings)
    with client.connection:
        start = time.perf_counter()
        for _ in range(calls):
            assert client.call(NUMBER) == ANSWER
        return calls / (time.perf_counter() - start)


def ours(calls: int, in_flight: int, environ: Mapping[str, str] | None = None) -> float:
    """Calls per second that rpc_client.py says it has made; ``environ`` is its environment."""
    options = [f"--count={calls}", f"--in-flight={in_flight}", "--deadline=60", str(NUMBER)]
    done = subprocess.run(
        [sys.executable, "rpc/rpc_client.py", *options],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.search(rf"Got {ANSWER}, {calls:,} times: ([\d,]+) calls/s", done.stdout)
    if told is None:
        raise SystemExit(f"rpc_client.py failed: {done.stdout}{done.stderr}")
    return float(told[1].replace(",", ""))


@contextmanager
def running(*command: str, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """A server, ready, and ended afterwards."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            if "Waiting" not in server.stdout.readline():
                raise SystemExit(f"{command[0]} did not start")
            yield
        finally:
            server.terminate()


def measure(settings: Settings, rounds: int, calls: int) -> None:
    to_new: list[tuple[float, float]] = []
    to_kept: list[tuple[float, float]] = []
    for number in range(1, rounds + 1):
        new = tutorial_new_client(settings, max(1, calls // 20))
        kept = tutorial_kept_client(settings, calls)
        single, many = ours(calls, 1), ours(calls * 5, IN_FLIGHT)
        to_new.append((single / new, many / new))
        to_kept.append((single / kept, many / kept))
        console.say(
            f"round {number}: tutorial, new client {new:,.0f}/s, kept client {kept:,.0f}/s; "
            f"ours, one at a time {single:,.0f}/s, {IN_FLIGHT} in flight {many:,.0f}/s"
        )
    for name, ratios in (("a new client for each call", to_new), ("a kept client", to_kept)):
        single, many = (statistics.median(column) for column in zip(*ratios, strict=True))
        console.say(f"median ratio to the tutorial with {name}: x {single:.1f} one at a time, x {many:.1f} in flight")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--rounds", type=console.whole(1, 1000), default=5, help="how often each has its turn")
    parser.add_argument("--calls", type=console.whole(1, 100_000), default=1000, help="in flight, five times as many")
    parser.add_argument("--tutorial-server", action="store_true", help="be the tutorial's server")
    arguments = parser.parse_args()
    settings = Settings.load()
    if arguments.tutorial_server:
        tutorial_server(settings)
        return
    ours_ready = running("rpc/rpc_server.py", "--quiet", f"--prefetch={IN_FLIGHT}")
    with running(str(Path(__file__).resolve()), "--tutorial-server"), ours_ready:
        measure(settings, arguments.rounds, arguments.calls)
    with connect("clean up", settings) as connection:
        connection.channel().queue_delete(QUEUE)


if __name__ == "__main__":
    console.run(main)
