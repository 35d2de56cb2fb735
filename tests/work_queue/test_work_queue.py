"""work_queue, where its README does not look."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.own_broker import OwnBroker
from tests.support.process import Script, run_script, wait_until
from tests.support.queues import put, take, take_all
from tour.vhost import environment, fresh_vhost

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "work_queue.tasks"
NEW_TASK = "work_queue/new_task.py"
WORKER = "work_queue/worker.py"
WORKER_AUTO_ACK = "work_queue/worker_auto_ack.py"
WORKER_REJECTING = "work_queue/worker_rejecting.py"
SEND_RUBBISH = "work_queue/send_rubbish.py"
WORKERS = [WORKER, WORKER_AUTO_ACK, WORKER_REJECTING]
RUBBISH = b"\xff\x00\xfe"
PERSISTENT = 2

each_worker = pytest.mark.parametrize("script", WORKERS, ids=lambda script: Path(script).stem)


@pytest.fixture
def channel(settings: Settings) -> Iterator[Channel]:
    """A channel on which the queue of tasks is declared."""
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        yield channel


def finish(worker: Script, channel: Channel) -> None:
    """Stop a worker with a prefetch of 1 when RabbitMQ has all its acknowledgements: it gets the next task only then.

    Fails if anything but that next task is left on the queue.
    """
    put(channel, QUEUE, b"the last" + b"." * 60)
    worker.expect(r"Received 'the last")
    worker.terminate()
    assert worker.wait() == 0
    assert [body.rstrip(b".") for _properties, body in take(channel, QUEUE, 1)] == [b"the last"]


def ready(channel: Channel) -> int:
    """Tasks that no worker has."""
    return int(channel.queue_declare(QUEUE, passive=True).method.message_count)


@pytest.mark.parametrize("script", [NEW_TASK, SEND_RUBBISH, *WORKERS])
@pytest.mark.parametrize("folder", [ROOT, ROOT / "work_queue"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python {script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_both_work_from_their_own_folder(environ: dict[str, str]) -> None:
    folder = ROOT / "work_queue"
    assert run_script("new_task.py", "over", "here", environ=environ, folder=folder).code == 0
    with Script("worker.py", environ=environ, folder=folder) as worker:
        worker.expect(r"^ \[x\] Done with 'over here'$")


@pytest.mark.parametrize(
    "arguments",
    [
        (NEW_TASK, "--count", "0"),
        (NEW_TASK, "--count", "many"),
        (WORKER, "--prefetch", "0"),
        (WORKER, "--prefetch", "2001"),
    ],
)
def test_a_number_out_of_range_is_an_error_of_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert arguments[1] in result.err
    assert arguments[2] in result.err


def test_many_tasks_are_all_there_in_order_and_persistent(environ: dict[str, str], channel: Channel) -> None:
    result = run_script(NEW_TASK, "--count", "1000", "Letter", environ=environ)
    assert (result.code, result.out) == (0, " [x] Sent 'Letter', 1000 times\n")
    taken = take(channel, QUEUE, 1000)
    assert [body.decode() for _properties, body in taken] == [f"{number}: Letter" for number in range(1, 1001)]
    assert {properties.delivery_mode for properties, _body in taken} == {PERSISTENT}


def test_the_producer_knows_when_the_queue_is_full(
    environ: dict[str, str], management: Management, channel: Channel
) -> None:
    management.set_policy("small", "tasks$", {"max-length": 5, "overflow": "reject-publish"})
    wait_until(lambda: management.queue(QUEUE).policy == "small")
    result = run_script(NEW_TASK, "--count", "20", "Letter", environ=environ)
    assert (result.code, result.out) == (ExitCode.NOT_CONFIRMED, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: ")
    assert ready(channel) == 5


@pytest.mark.parametrize(
    ("arguments", "prefetch"),
    [((WORKER,), 1), ((WORKER, "--prefetch", "7"), 7), ((WORKER_REJECTING,), 1), ((WORKER_AUTO_ACK,), 0)],
)
def test_how_many_tasks_a_worker_holds_at_most(
    arguments: tuple[str, ...], prefetch: int, environ: dict[str, str], management: Management
) -> None:
    with Script(*arguments, environ=environ) as worker:
        worker.expect("waits")
        [consumer] = wait_until(management.consumers)
        assert consumer.prefetch == prefetch


@each_worker
def test_a_worker_says_its_process_id(script: str, environ: dict[str, str]) -> None:
    with Script(script, environ=environ) as worker:
        assert int(worker.expect(r"^ \[\*\] Worker (\d+) waits for tasks\. To exit press CTRL\+C$")[1]) == worker.pid
        os.kill(worker.pid, 0)


def test_a_busy_worker_gets_no_second_task(environ: dict[str, str], channel: Channel) -> None:
    """Fair dispatch: while one worker is busy, the other one gets all the others."""
    with Script(WORKER, environ=environ) as busy, Script(WORKER, environ=environ) as free:
        busy.expect("waits")
        free.expect("waits")
        put(channel, QUEUE, b"Film" + b"." * 60)
        first, second = (busy, free) if wait_until(lambda: len(busy.lines) + len(free.lines) > 2) else (free, busy)
        if len(first.lines) == 1:
            first, second = second, first
        put(channel, QUEUE, *(b"%d" % number for number in range(20)))
        second.expect("Done with '19'")
        assert len(first.lines) == 2
        assert second.lines[1:] == [
            line for number in range(20) for line in (f" [x] Received '{number}'", f" [x] Done with '{number}'")
        ]


def test_a_large_prefetch_gives_tasks_to_a_busy_worker(environ: dict[str, str], channel: Channel) -> None:
    """Round-robin: the free worker gets half of the tasks; the other half waits for the busy one."""
    with (
        Script(WORKER, "--prefetch=10", environ=environ) as one,
        Script(WORKER, "--prefetch=10", environ=environ) as two,
    ):
        one.expect("waits")
        two.expect("waits")
        put(channel, QUEUE, b"Film" + b"." * 60, *(b"%d" % number for number in range(6)))
        wait_until(lambda: len(one.lines) + len(two.lines) == 2 + 1 + 2 * 3)
        assert ready(channel) == 0
        assert sorted([len(one.lines), len(two.lines)]) == [2, 7]


@pytest.mark.parametrize("script", [WORKER, WORKER_REJECTING], ids=lambda script: Path(script).stem)
@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_a_worker_stopped_in_mid_task_ends_with_0_and_gives_everything_back(
    script: str, stop: Callable[[Script], None], environ: dict[str, str], channel: Channel
) -> None:
    with Script(script, environ=environ) as worker:
        worker.expect("waits")
        put(channel, QUEUE, b"0" + b"." * 60, *(b"%d" % number for number in range(1, 10)))
        worker.expect("Received")
        stop(worker)
        assert worker.wait() == 0
        assert len(worker.lines) == 2
    assert sorted(body[:1] for _properties, body in take(channel, QUEUE, 10)) == [b"%d" % n for n in range(10)]


def test_the_tasks_of_killed_workers_are_all_done(environ: dict[str, str], channel: Channel) -> None:
    """Three workers are killed in mid-task. No task is lost, and only their three are begun twice."""
    put(channel, QUEUE, *(b"%d%s" % (number, b"." * 60 * (number < 3)) for number in range(20)))
    received = []
    for _ in range(3):
        with Script(WORKER, environ=environ) as worker:
            received.append(worker.expect(r"Received '(\d+)\.")[1])
            worker.kill()
            assert worker.wait() < 0
        # It may take RabbitMQ a moment to see that the worker is gone; then all of them are ready again.
        wait_until(lambda: ready(channel) == 20)
    again: list[tuple[int, bool]] = []
    for method, _properties, body in channel.consume(QUEUE, auto_ack=True, inactivity_timeout=30):
        assert method is not None, again
        assert body is not None
        again.append((int(body.rstrip(b".")), method.redelivered))
        if len(again) == 20:
            break
    assert sorted(number for number, _redelivered in again) == list(range(20))
    assert {str(number) for number, redelivered in again if redelivered} == set(received)


def test_a_killed_worker_with_auto_ack_loses_the_task_it_has_and_those_it_holds(
    environ: dict[str, str], channel: Channel
) -> None:
    with Script(WORKER_AUTO_ACK, environ=environ) as worker:
        worker.expect("waits")
        put(channel, QUEUE, b"0" + b"." * 60, *(b"%d" % number for number in range(1, 10)))
        worker.expect("Received")
        wait_until(lambda: ready(channel) == 0)
        worker.kill()
        assert worker.wait() < 0
        assert len(worker.lines) == 2
    with Script(WORKER, environ=environ) as other:
        other.expect("waits")
        put(channel, QUEUE, b"next")
        other.expect("Done with 'next'")
        # Ten tasks were sent, one was begun, none was done, and none is left.
        assert other.lines[1:] == [" [x] Received 'next'", " [x] Done with 'next'"]
        finish(other, channel)


def test_rubbish_ends_one_worker_after_the_other_and_stays_on_the_queue(
    environ: dict[str, str], channel: Channel
) -> None:
    assert run_script(SEND_RUBBISH, environ=environ).code == 0
    for _ in range(3):
        with Script(WORKER, environ=environ) as worker:
            assert worker.wait() == ExitCode.DATA
        assert worker.lines[1:] == ["error: the body is not UTF-8 text (byte 0)"]
        wait_until(lambda: ready(channel) == 1)
    assert [body for _properties, body in take(channel, QUEUE, 1)] == [RUBBISH]


@pytest.mark.parametrize("rubbish", [RUBBISH, b"caf\xe9", b""], ids=["rubbish", "Latin-1", "empty"])
def test_a_rejected_task_is_dropped_and_the_next_one_is_done(
    rubbish: bytes, environ: dict[str, str], channel: Channel
) -> None:
    put(channel, QUEUE, rubbish, b"next")
    with Script(WORKER_REJECTING, environ=environ) as worker:
        worker.expect("Done with 'next'")
        finish(worker, channel)
    assert worker.lines[1].startswith(" [!] Rejected a task: the ")
    assert worker.lines[2:4] == [" [x] Received 'next'", " [x] Done with 'next'"]


def test_a_task_longer_than_the_heartbeat_is_done_twice(environ: dict[str, str], channel: Channel) -> None:
    with Script(WORKER, environ={**environ, "RABBITMQ_HEARTBEAT": "2"}) as first:
        first.expect("waits")
        put(channel, QUEUE, b"Film.........")
        first.expect("Received")
        with Script(WORKER, environ=environ) as second:
            second.expect("Received")
            first.expect("Done")
            assert first.wait() == ExitCode.UNAVAILABLE
            assert len(first.lines) == 4
            assert first.lines[3].startswith("error: the connection to RabbitMQ at ")
            second.expect("Done")
            finish(second, channel)


@each_worker
def test_when_its_queue_is_deleted_a_worker_says_so_and_ends(
    script: str, environ: dict[str, str], channel: Channel
) -> None:
    with Script(script, environ=environ) as worker:
        worker.expect("waits")
        channel.queue_delete(QUEUE)
        assert worker.wait() == ExitCode.UNAVAILABLE
    [line] = worker.lines[1:]
    assert line.startswith("error: RabbitMQ cancelled the consumer: its queue was deleted")


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("own broker 1")
def test_a_restart_ends_the_worker_and_loses_no_task(own_broker: OwnBroker) -> None:
    with fresh_vhost(own_broker.settings, "test.restart") as settings:
        environ = environment(settings)
        assert run_script(NEW_TASK, "--count", "20", "Letter.....", environ=environ).code == 0
        with Script(WORKER, environ=environ) as worker:
            worker.expect("Received '1: ")
            assert own_broker.run("restart").code == 0
            # A worker at work does not read from its connection. It meets the end of it when the task is done.
            assert worker.wait() == ExitCode.UNAVAILABLE
        last = len(worker.lines[1:-1]) // 2
        assert worker.lines[-2].startswith(f" [x] Done with '{last}: ")
        assert worker.lines[-1].startswith("error: ")
        with connect("test", settings) as connection:
            left = {int(body.split(b":")[0]) for _properties, body in take_all(connection.channel(), QUEUE)}
        # The acknowledgement of the last one has not arrived, as a rule.
        assert left | {last} == set(range(last, 21))
