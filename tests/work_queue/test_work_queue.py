"""work_queue, where its README does not look."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from common.management import Management
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.queues import put, take

QUEUE = "work_queue.tasks"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
NEW_TASK = "work_queue/new_task.py"
WORKER = "work_queue/worker.py"
DELIVERY_LIMIT = 20


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.mark.parametrize("script", ["new_task.py", "worker.py"])
@pytest.mark.parametrize("folder", [ROOT, ROOT / "work_queue"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "work_queue" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python work_queue/{script}" in result.out
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
        (WORKER, "--seconds-per-dot", "-1"),
        (WORKER, "--seconds-per-dot", "nan"),
    ],
)
def test_a_number_out_of_range_is_told_in_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert arguments[1] in result.err
    assert arguments[2] in result.err


def test_many_tasks_are_all_there_in_order_and_can_be_told_apart(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    result = run_script(NEW_TASK, "--count", "3000", "Letter", environ=environ)
    assert (result.code, result.out) == (0, " [x] Sent 'Letter', 3000 times\n")
    taken = take(channel, QUEUE, 3000)
    assert [body.decode() for _properties, body in taken] == [f"{number}: Letter" for number in range(1, 3001)]
    assert len({properties.message_id for properties, _body in taken}) == 3000
    assert {properties.delivery_mode for properties, _body in taken} == {2}


def test_a_full_queue_is_told(environ: dict[str, str], management: Management, channel: BlockingChannel) -> None:
    management.set_policy("small", "tasks$", {"max-length": 5})
    result = run_script(NEW_TASK, "--count", "2000", "Letter", environ=environ)
    assert (result.code, result.out) == (ExitCode.NOT_CONFIRMED, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: ")
    # It is told, and what was refused is not there behind our back.
    assert 5 <= channel.queue_declare(QUEUE, passive=True).method.message_count < 2000


def test_a_worker_holds_one_task_unless_told_otherwise(environ: dict[str, str], management: Management) -> None:
    with Script(WORKER, environ=environ) as one, Script(WORKER, "--prefetch", "7", environ=environ) as seven:
        one.expect("Waiting")
        seven.expect("Waiting")
        wait_until(lambda: sorted(consumer.prefetch for consumer in management.consumers()) == [1, 7])


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_worker_finishes_its_task_and_leaves_the_rest(
    stop: object, environ: dict[str, str], channel: BlockingChannel
) -> None:
    with Script(WORKER, "--prefetch", "10", environ=environ) as worker:
        worker.expect("Waiting")
        put(channel, QUEUE, b"0..", *(b"%d" % number for number in range(1, 10)))
        worker.expect("Received '0..'")
        stop(worker)  # type: ignore[operator]
        assert worker.wait() == 0
        assert worker.lines[1:] == [" [x] Received '0..'", " [x] Done with '0..'"]
    rest = take(channel, QUEUE, 9)
    # Not in their order: what was still on its way to the worker is back first.
    assert sorted(body for _properties, body in rest) == [b"%d" % number for number in range(1, 10)]


def test_a_second_ctrl_c_leaves_at_once(environ: dict[str, str], channel: BlockingChannel) -> None:
    with Script(WORKER, environ=environ) as worker:
        worker.expect("Waiting")
        put(channel, QUEUE, b"." * 300)
        worker.expect("Received")
        worker.interrupt()
        wait_until(lambda: worker.code is not None or worker.interrupt(), every=0.5)
        # On a busy machine a third one meets Python while it ends.
        assert worker.wait() in {0, -signal.SIGINT}
    assert take(channel, QUEUE, 1)[0][1] == b"." * 300


def test_the_tasks_of_killed_workers_are_all_done(environ: dict[str, str], channel: BlockingChannel) -> None:
    """Three workers die by SIGKILL in mid-task. Nothing is lost, and only their three tasks are begun twice."""
    assert run_script(NEW_TASK, "--count", "20", "Letter.", environ=environ).code == 0
    received: list[str] = []
    for _ in range(3):
        with Script(WORKER, "--seconds-per-dot", "60", environ=environ) as worker:
            received.append(worker.expect(r"Received '(\d+): ")[1])
            worker.kill()
            assert worker.wait() < 0
    with Script(WORKER, "--seconds-per-dot", "0.01", environ=environ) as worker:
        done = []
        for _ in range(20):
            received.append(worker.expect(r"Received '(\d+): ")[1])
            done.append(worker.expect(r"Done with '(\d+): ")[1])
        worker.terminate()
        assert worker.wait() == 0
    assert sorted(map(int, done)) == list(range(1, 21))
    assert len(received) == 23
    assert take(channel, QUEUE, 0) == []
    assert take(channel, DEAD_LETTERS, 0) == []


def test_a_task_that_kills_its_workers_is_set_aside(settings: Settings, environ: dict[str, str]) -> None:
    """The delivery limit, on every version: after the first delivery, 20 more; then the dead letters."""
    with Script(WORKER, environ=environ) as worker:
        worker.expect("Waiting")
        worker.terminate()
        assert worker.wait() == 0
    with connect("test", settings) as connection:
        put(connection.channel(), QUEUE, b"deadly", b"harmless")
    killed = 0
    while True:
        with connect("a worker", settings) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1)
            _method, _properties, body = next(channel.consume(QUEUE, inactivity_timeout=30))
            if body != b"deadly":
                break
            # Closed with a message in hand: for the broker the same as a death.
            killed += 1
            assert killed < 100
    assert killed == 1 + DELIVERY_LIMIT
    with connect("test", settings) as connection:
        [(properties, body)] = take(connection.channel(), DEAD_LETTERS, 1)
    assert body == b"deadly"
    assert properties.headers["x-first-death-reason"] == "delivery_limit"
