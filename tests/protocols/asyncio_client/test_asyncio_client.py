"""protocols/asyncio_client, where its README does not look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Address, Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take, take_all
from tour.vhost import environment

pytest.importorskip("aio_pika", reason="aio-pika is not installed: it is in protocols/asyncio_client/requirements.txt")

QUEUE = "work_queue.tasks"
NEW_TASK = "protocols/asyncio_client/new_task.py"
WORKER = "protocols/asyncio_client/worker.py"
LIMIT = 90.0


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.mark.parametrize("producer", ["work_queue/new_task.py", NEW_TASK])
@pytest.mark.parametrize("consumer", ["work_queue/worker.py", WORKER])
def test_each_works_with_the_others(producer: str, consumer: str, environ: dict[str, str]) -> None:
    option = "--at-once" if consumer == WORKER else "--prefetch"
    with Script(consumer, option, "50", environ=environ) as worker:
        worker.expect("[Ww]ait", LIMIT)
        result = run_script(producer, "--count", "300", "Letter", environ=environ, limit=LIMIT)
        assert (result.code, result.err) == (0, "")
        worker.expect("Done with '300: Letter'", LIMIT)
        worker.terminate()
        assert worker.wait(LIMIT) == 0
        done = Counter(line for line in worker.lines if "Done" in line)
    assert done == Counter(f" [x] Done with '{number}: Letter'" for number in range(1, 301))


def test_what_pika_receives_has_all_properties(environ: dict[str, str], channel: BlockingChannel) -> None:
    assert run_script(NEW_TASK, "--count", "300", "Brief", environ=environ, limit=LIMIT).code == 0
    taken = take(channel, QUEUE, 300)
    assert [body.decode() for _properties, body in taken] == [f"{number}: Brief" for number in range(1, 301)]
    assert len({properties.message_id for properties, _body in taken}) == 300
    assert {(properties.delivery_mode, properties.content_type) for properties, _body in taken} == {(2, "text/plain")}


@pytest.mark.timeout(400)
def test_workers_killed_ten_times_lose_nothing(environ: dict[str, str], channel: BlockingChannel) -> None:
    total = 400
    result = run_script(NEW_TASK, "--count", str(total), "Film.", environ=environ, limit=LIMIT)
    assert result.code == 0
    done: Counter[str] = Counter()
    for _ in range(10):
        with Script(WORKER, "--at-once", "20", "--seconds-per-dot", "0.02", environ=environ) as worker:
            worker.expect("Done", LIMIT)
            worker.kill()
            worker.wait()
        done.update(line for line in worker.lines if "Done" in line)
    with Script(WORKER, "--at-once", "20", "--seconds-per-dot", "0", environ=environ) as worker:
        wait_until(lambda: len(done | Counter(line for line in worker.lines if "Done" in line)) == total, LIMIT)
        worker.terminate()
        assert worker.wait(LIMIT) == 0
        done.update(line for line in worker.lines if "Done" in line)
    assert set(done) == {f" [x] Done with '{number}: Film.'" for number in range(1, total + 1)}
    # No more than what a worker had in its hands when it was killed is done twice.
    assert done.total() <= total + 10 * 20
    assert take_all(channel, QUEUE) == []


@pytest.mark.timeout(400)
def test_connections_cut_while_publishing_lose_nothing(settings: Settings, channel: BlockingChannel) -> None:
    total = 2000
    with Proxy(settings.addresses[0]) as proxy:
        through = environment(replace(settings, addresses=(proxy.address,)))
        with Script(NEW_TASK, "--count", str(total), "--in-flight", "20", "Brief", environ=through) as producer:
            for cut in range(1, 4):
                wait_until(lambda: queued(channel) >= cut * 100, LIMIT)  # noqa: B023
                assert producer.code is None
                # Perhaps one that is just being opened: that is tried again without a word.
                wait_until(lambda: proxy.cut(1), LIMIT)
                wait_until(lambda: proxy.connections, LIMIT)
            assert producer.wait(LIMIT) == 0, producer.lines
            assert any("connecting again" in line for line in producer.lines)
            assert any("2000 times" in line for line in producer.lines)
    wait_until(lambda: queued(channel) >= total, LIMIT)
    bodies = Counter(body for _properties, body in take_all(channel, QUEUE))
    assert set(bodies) == {b"%d: Brief" % number for number in range(1, total + 1)}
    assert bodies.total() <= total + 3 * 20


def queued(channel: BlockingChannel) -> int:
    """How many messages are ready; the queue is there as soon as a script has declared it."""
    return channel.queue_declare(QUEUE, durable=True).method.message_count  # type: ignore[no-any-return]


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_worker_finishes_what_it_has_begun_and_leaves_the_rest(
    stop: object, environ: dict[str, str], channel: BlockingChannel
) -> None:
    assert run_script(NEW_TASK, "--count", "30", "Film..", environ=environ, limit=LIMIT).code == 0
    with Script(WORKER, "--at-once", "10", environ=environ) as worker:
        worker.expect("Received '10: Film", LIMIT)
        stop(worker)  # type: ignore[operator]
        assert worker.wait(LIMIT) == 0
        received, done = ([line for line in worker.lines if word in line] for word in ("Received", "Done"))
    assert len(received) == len(done) == 10
    assert sorted(body for _properties, body in take(channel, QUEUE, 20)) == sorted(
        b"%d: Film.." % number for number in range(11, 31)
    )


def test_a_second_ctrl_c_leaves_at_once(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(WORKER, environ=environ) as worker:
        worker.expect("Waiting", LIMIT)
        put(channel, QUEUE, b"." * 300)
        worker.expect("Received", LIMIT)
        worker.interrupt()
        wait_until(lambda: worker.code is not None or worker.interrupt(), every=0.5)
        assert worker.wait() == 0
        assert not any("Traceback" in line for line in worker.lines)
    assert take(channel, QUEUE, 1)[0][1] == b"." * 300


def test_what_is_no_text_is_rejected_and_the_next_task_is_done(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    with Script(WORKER, environ=environ) as worker:
        worker.expect("Waiting", LIMIT)
        put(channel, QUEUE, b"\xff\xfe", b"", b"the next one")
        worker.expect("Rejected a task: the body is not UTF-8", LIMIT)
        worker.expect("Rejected a task: the message is empty", LIMIT)
        worker.expect("Done with 'the next one'", LIMIT)
        worker.terminate()
        assert worker.wait(LIMIT) == 0
    assert take_all(channel, QUEUE) == []


def test_it_holds_no_more_than_it_may(environ: dict[str, str], management: Management) -> None:
    with Script(WORKER, "--at-once", "7", environ=environ) as worker:
        worker.expect("Waiting", LIMIT)
        wait_until(lambda: [consumer.prefetch for consumer in management.consumers()] == [7], LIMIT)


def test_a_full_queue_is_told(environ: dict[str, str], management: Management, channel: BlockingChannel) -> None:
    management.set_policy("small", "tasks$", {"max-length": 5, "overflow": "reject-publish"})
    result = run_script(NEW_TASK, "--count", "2000", "Brief", environ=environ, limit=LIMIT)
    assert (result.code, result.out) == (ExitCode.NOT_CONFIRMED, "")
    assert result.err.startswith("error: RabbitMQ did not take the message: its queue may be full")
    assert result.err.count("\n") == 1
    assert 5 <= channel.queue_declare(QUEUE, passive=True).method.message_count < 2000


def test_a_queue_that_is_deleted_is_declared_again(
    environ: dict[str, str], management: Management, channel: BlockingChannel
) -> None:
    with Script(WORKER, environ=environ) as worker:
        worker.expect("Waiting", LIMIT)
        management.delete_queue(QUEUE)
        wait_until(lambda: [queue for queue in management.queues() if queue.name == QUEUE], LIMIT)
        put(channel, QUEUE, b"back again", properties=BasicProperties(delivery_mode=2))
        worker.expect("Done with 'back again'", LIMIT)


def test_it_gives_up_when_the_broker_does_not_come_back(settings: Settings) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        own = environment(replace(settings, addresses=(proxy.address,))) | {"RABBITMQ_RECONNECT_TIMEOUT": "2"}
        with Script(WORKER, environ=own) as worker:
            worker.expect("Waiting", LIMIT)
            proxy.refuse()
            proxy.cut()
            worker.expect("connecting again", LIMIT)
            worker.expect(r"error: RabbitMQ at .* did not come back in 2 s", LIMIT)
            assert worker.wait(LIMIT) == ExitCode.UNAVAILABLE


def test_several_hosts(settings: Settings) -> None:
    hosts = (Address("127.0.0.1", 1), settings.addresses[0])
    result = run_script(NEW_TASK, "Hello", environ=environment(replace(settings, addresses=hosts)), limit=LIMIT)
    assert (result.code, result.out) == (0, " [x] Sent 'Hello'\n")
