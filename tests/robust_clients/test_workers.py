"""The workers of robust_clients under each failure that they are for, and under those that they do not yet survive."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pika
import pytest

from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode
from tests.drills.brokers import Victim
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take
from tests.support.report import Report
from tour.vhost import environment

SECTION = "Robust clients"
QUEUE = "work_queue.tasks"
PLAIN = "work_queue/worker.py"
THREADED = "robust_clients/worker_threaded.py"
RECONNECTING = "robust_clients/worker_reconnecting.py"
STOPPING = "robust_clients/worker_stopping.py"
WORKER = "robust_clients/worker.py"
ALL = [THREADED, RECONNECTING, STOPPING, WORKER]
SCRIPTS = sorted(path.name for path in (ROOT / "robust_clients").glob("*.py") if "def main" in path.read_text())


def each(scripts: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("script", scripts, ids=lambda script: Path(script).stem)


@pytest.fixture
def channel(settings: Settings) -> Iterator[Channel]:
    """A channel on which the queue of tasks is declared."""
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        yield channel


@contextmanager
def proxied(settings: Settings) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """A proxy before the broker, and the environment for a script that connects through it."""
    with Proxy(settings.addresses[0]) as proxy:
        yield proxy, environment(replace(settings, addresses=(proxy.address,)))


def told(script: Script) -> list[str]:
    """What the script has said on standard error. Fails if a traceback is in it."""
    lines = [line for line in script.lines if line.startswith((" [!]", "error:", "Traceback"))]
    assert not [line for line in lines if line.startswith("Traceback")], script.lines
    return lines


def done(script: Script) -> list[str]:
    return [line.split("'")[1] for line in script.lines if line.startswith(" [x] Done with")]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("folder", [ROOT, ROOT / "robust_clients"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "robust_clients" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python robust_clients/{script}" in result.out
    assert (result.code, result.err) == (0, "")


@each(ALL)
def test_without_a_broker_it_ends_with_one_line(script: str, offline: dict[str, str]) -> None:
    """Also those that connect again: they do so only when it has worked once."""
    result = run_script(script, environ=offline | {"RABBITMQ_CONNECT_TIMEOUT": "0.1"})
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert result.err.startswith("error: nothing answers at ")
    assert result.err.count("\n") == 1


@each(ALL)
def test_a_queue_that_is_declared_otherwise_is_told_in_one_line(
    script: str, environ: dict[str, str], settings: Settings
) -> None:
    with connect("test", settings) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, arguments={"x-max-length": 1})
    result = run_script(script, environ=environ)
    assert (result.code, result.out) == (ExitCode.DECLARED_OTHERWISE, "")
    assert result.err.startswith(f"error: queue '{QUEUE}' exists with another ")
    assert result.err.count("\n") == 1


# Heartbeats


def test_a_task_longer_than_the_heartbeat_is_done_once(environ: dict[str, str], channel: Channel) -> None:
    """7 s with a heartbeat of 2 s: each of the four workers does one such task, at the same time."""
    films = [f"Film {number}......." for number in range(4)]
    with ExitStack() as stack:
        workers = [stack.enter_context(Script(name, environ=environ | {"RABBITMQ_HEARTBEAT": "2"})) for name in ALL]
        for worker in workers:
            worker.expect("waits for tasks")
        put(channel, QUEUE, *(film.encode() for film in films))
        for worker in workers:
            worker.expect("Done with")
        # A worker gets the next task when it has acknowledged the one before.
        put(channel, QUEUE, *[b"next" + b"." * 60] * 4)
        for worker in workers:
            worker.expect("Received 'next")
        assert [told(worker) for worker in workers] == [[]] * 4
        assert sorted(film for worker in workers for film in done(worker)) == films


# A broken connection


def test_the_threaded_worker_ends_when_its_connection_breaks(settings: Settings, channel: Channel) -> None:
    with proxied(settings) as (proxy, environ), Script(THREADED, environ=environ) as worker:
        put(channel, QUEUE, b"Film..")
        worker.expect("Received 'Film..'")
        proxy.cut()
        assert worker.wait() == ExitCode.UNAVAILABLE
        assert worker.lines[1:3] == [" [x] Received 'Film..'", " [x] Done with 'Film..'"]
        [line] = told(worker)
        assert line.startswith("error: ")
    # It was done, and comes again.
    assert [body for _properties, body in take(channel, QUEUE, 1)] == [b"Film.."]


@each([RECONNECTING, STOPPING, WORKER])
def test_a_task_whose_connection_broke_comes_again_and_no_other_is_acknowledged_instead(
    script: str, settings: Settings, channel: Channel
) -> None:
    """Its tag, 1, is the first tag of the new channel, too."""
    with proxied(settings) as (proxy, environ), Script(script, environ=environ) as worker:
        worker.expect("waits for tasks")
        put(channel, QUEUE, b"first...", b"second", b"third")
        worker.expect("Received 'first...'")
        proxy.cut()
        worker.expect(r"^ \[!\] .+; connecting again")
        worker.expect("waits for tasks")
        # On a busy machine the new connection can be there before RabbitMQ has seen the end of the old one.
        wait_until(lambda: Counter(done(worker)) == {"first...": 2, "second": 1, "third": 1})
        put(channel, QUEUE, b"next" + b"." * 60)
        worker.expect("Received 'next")
        assert len(told(worker)) == 1
        worker.kill()
    wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count)
    assert take_rest(channel) == [b"next" + b"." * 60]


def test_what_the_tag_of_a_dead_channel_would_do_on_another_one(settings: Settings, channel: Channel) -> None:
    """The README says: acknowledge another task, which is lost, while the one that was done comes again."""
    put(channel, QUEUE, b"done", b"another")
    with connect("first", settings) as connection:
        method, _properties, body = connection.channel().basic_get(QUEUE)
        assert (method.delivery_tag, body) == (1, b"done")
    second = connect("second", settings)
    try:
        consuming = second.channel()
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == 2)
        # Whichever task comes first on the new channel: it has the tag 1.
        first, _properties, body = channel.basic_get(QUEUE)
        assert body == b"done"
        another, _properties, body = consuming.basic_get(QUEUE)
        assert (another.delivery_tag, body) == (1, b"another")
        consuming.basic_ack(method.delivery_tag)
        channel.basic_reject(first.delivery_tag, requeue=True)
    finally:
        second.close()
    assert take_rest(channel) == [b"done"]


def take_rest(channel: Channel) -> list[bytes]:
    """What is left on the queue, where every acknowledgement has arrived: the worker has gone."""
    count = channel.queue_declare(QUEUE, passive=True).method.message_count
    return [body for _properties, body in take(channel, QUEUE, count)]


@each([RECONNECTING, STOPPING, WORKER])
@pytest.mark.timeout(300)
def test_ten_cuts(script: str, settings: Settings, channel: Channel, report: Report) -> None:
    tasks = [f"{number}: Letter" for number in range(1, 1501)]
    put(channel, QUEUE, *(task.encode() for task in tasks))
    with proxied(settings) as (proxy, environ), Script(script, environ=environ) as worker:
        for cut in range(1, 11):
            worker.expect(f"Done with '{cut * 100}: ", limit=60)
            assert wait_until(proxy.cut) == 1
        worker.expect("Done with '1500: ", limit=60)
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == 0)
        worker.terminate()
        assert worker.wait() == 0
        # The broker can have broken off the same connection once more before we saw a line.
        assert len(told(worker)) == 10
        times = Counter(done(worker))
    twice = sum(count - 1 for count in times.values())
    report.add(SECTION, f"{Path(script).stem}: 10 cuts, 1,500 tasks; 0 missing, {twice} done once more")
    assert set(times) == set(tasks)
    assert twice <= 10
    assert len(take_rest(channel)) <= 1


@each([RECONNECTING, STOPPING, WORKER])
def test_a_consumer_that_rabbitmq_has_cancelled_begins_again(
    script: str, environ: dict[str, str], channel: Channel
) -> None:
    with Script(script, environ=environ) as worker:
        worker.expect("waits for tasks")
        channel.queue_delete(QUEUE)
        worker.expect(r"^ \[!\] RabbitMQ cancelled the consumer.*; connecting again$")
        worker.expect("waits for tasks")
        put(channel, QUEUE, b"Letter")
        worker.expect("Done with 'Letter'")
        assert len(told(worker)) == 1


def test_the_threaded_worker_ends_when_its_queue_is_deleted(environ: dict[str, str], channel: Channel) -> None:
    with Script(THREADED, environ=environ) as worker:
        worker.expect("waits for tasks")
        channel.queue_delete(QUEUE)
        assert worker.wait() == ExitCode.UNAVAILABLE
        [line] = told(worker)
        assert line.startswith("error: RabbitMQ cancelled the consumer")


def test_the_start_consuming_of_pika_returns_when_its_queue_is_deleted(settings: Settings, channel: Channel) -> None:
    """What the README says of pika without common.connection."""
    address = settings.addresses[0]
    where = pika.ConnectionParameters(
        address.host,
        address.port,
        settings.vhost,
        pika.PlainCredentials(settings.user, settings.password),
    )
    with pika.BlockingConnection(where) as connection:
        consuming = connection.channel()
        consuming.basic_consume(QUEUE, lambda *_delivery: None)
        channel.queue_delete(QUEUE)
        consuming.start_consuming()
        assert consuming.is_open


# Each acknowledgement twice: RabbitMQ closes the channel of whoever does that.
ACKNOWLEDGES_TWICE = """
import sys
sys.path.insert(0, "robust_clients")
import worker_stopping
from common import console

begin, tasks = worker_stopping.begin, []

def begin_and_acknowledge(worker, channel, method, properties, body):
    begin(worker, channel, method, properties, body)
    tasks.append(body)
    if len(tasks) == 1:
        again = lambda: channel.basic_ack(method.delivery_tag)
        worker.submit(channel.connection.add_callback_threadsafe, again)

worker_stopping.begin = begin_and_acknowledge
sys.argv[1:] = []
console.run(worker_stopping.main)
"""


def test_a_channel_that_rabbitmq_has_closed_is_replaced(environ: dict[str, str], channel: Channel) -> None:
    with Script("-c", ACKNOWLEDGES_TWICE, environ=environ) as worker:
        worker.expect("waits for tasks")
        put(channel, QUEUE, b"one", b"two", b"three")
        worker.expect("Done with 'one'")
        worker.expect("waits for tasks")
        worker.expect("Done with 'three'")
        worker.terminate()
        assert worker.wait() == 0


@pytest.mark.long
@each([RECONNECTING, STOPPING])
def test_it_does_not_try_for_ever(script: str, settings: Settings) -> None:
    with proxied(settings) as (proxy, environ):
        environ["RABBITMQ_CONNECT_TIMEOUT"] = "0.1"
        with Script(script, environ=environ) as worker:
            worker.expect("waits for tasks")
            proxy.refuse()
            proxy.cut()
            assert worker.wait(60) == ExitCode.UNAVAILABLE
            *again, last = told(worker)
            assert len(again) == 10
            assert last.startswith("error: nothing answers at ")


@pytest.mark.long
@pytest.mark.xdist_group("victim")
@pytest.mark.timeout(400)
@each([RECONNECTING, STOPPING, WORKER])
def test_the_broker_is_killed(script: str, shared_victim: Victim, report: Report) -> None:
    tasks = [f"{number}: Letter" for number in range(1, 2001)]
    with connect("test", shared_victim.settings) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_purge(QUEUE)
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        put(channel, QUEUE, *(task.encode() for task in tasks), properties=persistent)
    with Script(script, environ=environment(shared_victim.settings)) as worker:
        worker.expect("Done with '100: ")
        shared_victim.kill()
        shared_victim.start()
        worker.expect("Done with '2000: ", limit=90)
        worker.terminate()
        assert worker.wait() == 0
        assert told(worker)
        times = Counter(done(worker))
    twice = sum(count - 1 for count in times.values())
    report.add(SECTION, f"{Path(script).stem}: the broker killed, 2,000 tasks; 0 missing, {twice} done once more")
    assert set(times) == set(tasks)


# Stopping

each_signal = pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])


@each_signal
@each([THREADED, RECONNECTING])
def test_a_worker_that_is_stopped_finishes_its_task_and_does_not_acknowledge_it(
    script: str, stop: Callable[[Script], None], environ: dict[str, str], channel: Channel
) -> None:
    put(channel, QUEUE, b"Film..", b"Letter")
    with Script(script, environ=environ) as worker:
        worker.expect("Received 'Film..'")
        stop(worker)
        assert worker.wait() == 0
        assert worker.lines[1:] == [" [x] Received 'Film..'", " [x] Done with 'Film..'"]
    assert take_rest(channel) == [b"Film..", b"Letter"]


@each_signal
@each([STOPPING, WORKER])
def test_a_worker_that_is_stopped_finishes_its_task_and_leaves_the_rest(
    script: str, stop: Callable[[Script], None], environ: dict[str, str], channel: Channel
) -> None:
    put(channel, QUEUE, b"Film....", b"Letter", b"Book")
    with Script(script, environ=environ) as worker:
        worker.expect("Received 'Film....'")
        stop(worker)
        assert worker.wait() == 0
        assert worker.lines[1:] == [" [x] Received 'Film....'", " [x] Done with 'Film....'"]
    assert take_rest(channel) == [b"Letter", b"Book"]


@each([STOPPING, WORKER])
def test_eight_stops_under_load(script: str, environ: dict[str, str], channel: Channel, report: Report) -> None:
    """Nothing is done twice, because each task that was begun is acknowledged."""
    tasks = [f"{number}: Letter" for number in range(1, 3001)]
    put(channel, QUEUE, *(task.encode() for task in tasks))
    times: Counter[str] = Counter()
    for number in range(8):
        with Script(script, environ=environ) as worker:
            worker.expect(f"Done with '{sum(times.values()) + 50 + number}: ")
            worker.terminate()
            assert worker.wait() == 0
            assert told(worker) == []
            times.update(done(worker))
    rest = [body.decode() for body in take_rest(channel)]
    report.add(SECTION, f"{Path(script).stem}: 8 stops under load; {len(times):,} tasks, none twice, none missing")
    assert max(times.values()) == 1
    assert sorted([*times, *rest]) == sorted(tasks)


@each([RECONNECTING, STOPPING, WORKER])
def test_a_stop_while_the_broker_is_away(script: str, settings: Settings) -> None:
    with proxied(settings) as (proxy, environ), Script(script, environ=environ) as worker:
        worker.expect("waits for tasks")
        proxy.refuse()
        proxy.cut()
        worker.expect("connecting again")
        worker.terminate()
        assert worker.wait(20) == 0


@each(ALL)
def test_a_killed_worker_loses_nothing(script: str, environ: dict[str, str], channel: Channel) -> None:
    put(channel, QUEUE, b"Film...", b"Letter")
    with Script(script, environ=environ) as worker:
        worker.expect("Received 'Film...'")
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
    wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == 2)
    assert take_rest(channel) == [b"Film...", b"Letter"]


# A task that cannot be done


@each([THREADED, RECONNECTING, STOPPING])
def test_a_task_that_is_no_text_ends_the_plain_workers(script: str, environ: dict[str, str], channel: Channel) -> None:
    """As it ends work_queue/worker.py; worker_rejecting.py there says what to do."""
    put(channel, QUEUE, b"\xff", b"Letter")
    with Script(script, environ=environ) as worker:
        assert worker.wait() == ExitCode.DATA
        assert told(worker) == ["error: the body is not UTF-8 text (byte 0)"]
    assert take_rest(channel) == [b"\xff", b"Letter"]


def test_a_task_that_is_no_text_is_rejected_by_the_last_one(environ: dict[str, str], channel: Channel) -> None:
    put(channel, QUEUE, b"\xff", b"Letter")
    with Script(WORKER, environ=environ) as worker:
        worker.expect(r"^ \[!\] .+rejected.+not UTF-8")
        worker.expect("Done with 'Letter'")
        worker.terminate()
        assert worker.wait() == 0
    assert take_rest(channel) == []
