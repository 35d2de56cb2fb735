"""python -m broker reset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Script, run_script
from tour.vhost import environment


def declare(settings: Settings) -> None:
    """What three lessons might have left: two of them with names that begin alike."""
    with connect("test", settings) as connection:
        channel = connection.channel()
        for queue in ("work_queue.tasks", "work_queue.tasks.more", "work_queues.tasks", "dead_letters.orders", "own"):
            channel.queue_declare(queue, durable=True)
        channel.queue_declare("work_queue.quorum", durable=True, arguments={"x-queue-type": "quorum"})
        channel.exchange_declare("work_queue.tasks", "fanout", durable=True)
        channel.exchange_declare("dead_letters.orders", "direct", durable=True)
        channel.queue_bind("work_queue.tasks", "work_queue.tasks")
        channel.confirm_delivery()
        channel.basic_publish("", "work_queue.tasks", b"a task")


def names(management: Management) -> tuple[list[str], list[str]]:
    exchanges = [exchange.name for exchange in management.exchanges()]
    queues = sorted(queue.name for queue in management.queues())
    return queues, sorted(name for name in exchanges if name and not name.startswith("amq."))


@pytest.mark.parametrize("lesson", ["work_queue", "work_queue/", "./work_queue"])
def test_it_deletes_the_queues_and_exchanges_of_one_lesson(
    lesson: str, settings: Settings, environ: dict[str, str], management: Management
) -> None:
    declare(settings)
    result = run_script("-m", "broker", "reset", lesson, environ=environ)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "deleted queue work_queue.quorum",
        "deleted queue work_queue.tasks",
        "deleted queue work_queue.tasks.more",
        "deleted exchange work_queue.tasks",
    ]
    assert names(management) == (["dead_letters.orders", "own", "work_queues.tasks"], ["dead_letters.orders"])
    again = run_script("-m", "broker", "reset", lesson, environ=environ)
    assert (again.code, again.err) == (0, "")
    assert again.out == (
        f"nothing to delete: no queue or exchange in virtual host '{settings.vhost}' has a name that begins with "
        "'work_queue.'\n"
    )


@pytest.mark.parametrize("lesson", ["reliability/dead_letters", "reliability/dead_letters/"])
def test_a_lesson_on_a_shelf_is_named_by_its_path(
    lesson: str, settings: Settings, environ: dict[str, str], management: Management
) -> None:
    declare(settings)
    result = run_script("-m", "broker", "reset", lesson, environ=environ)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == ["deleted queue dead_letters.orders", "deleted exchange dead_letters.orders"]
    queues, exchanges = names(management)
    assert "work_queue.tasks" in queues
    assert exchanges == ["work_queue.tasks"]


@pytest.mark.parametrize(
    "lesson", ["work_que", "dead_letters", "reliability", "common", "broker", "tests", "", "/", ".", "..", "/etc"]
)
def test_an_unknown_lesson_is_an_error_of_one_line(
    lesson: str, settings: Settings, environ: dict[str, str], management: Management
) -> None:
    declare(settings)
    before = names(management)
    result = run_script("-m", "broker", "reset", lesson, environ=environ)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.startswith(f"error: there is no lesson '{lesson}'; ")
    assert result.err.count("\n") == 1
    assert names(management) == before


@pytest.mark.parametrize("lessons", [[], ["work_queue", "routing"]])
def test_it_wants_one_lesson(lessons: list[str], offline: dict[str, str]) -> None:
    result = run_script("-m", "broker", "reset", *lessons, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "reset needs the name of one lesson" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("tags", "configure"), [("", ".*"), ("management", "^$")], ids=["not in the management API", "may not delete"]
)
def test_without_permission_it_says_so_in_one_line(
    tags: str, configure: str, settings: Settings, management: Management
) -> None:
    declare(settings)
    name = f"user.{settings.vhost}"[:100]
    management.create_user(name, "secret", tags)
    try:
        management.set_permissions(name, settings.vhost, configure=configure)
        environ = environment(replace(settings, user=name, password="secret"))
        result = run_script("-m", "broker", "reset", "work_queue", environ=environ)
    finally:
        management.delete_user(name)
    assert (result.code, result.out) == (ExitCode.ACCESS, "")
    assert result.err.startswith("error: ")
    assert name in result.err
    assert result.err.count("\n") == 1
    assert "work_queue.tasks" in names(management)[0]


def test_without_a_broker_it_says_so_in_one_line(environ: dict[str, str]) -> None:
    nowhere = {**environ, "RABBITMQ_MANAGEMENT_URL": "http://localhost:1"}
    result = run_script("-m", "broker", "reset", "work_queue", environ=nowhere)
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert result.err.count("\n") == 1


def test_a_consumer_of_what_is_deleted_ends_with_one_line(environ: dict[str, str]) -> None:
    with Script("work_queue/worker.py", environ=environ) as worker:
        worker.expect("waits")
        assert run_script("-m", "broker", "reset", "work_queue", environ=environ).code == 0
        assert worker.wait() == ExitCode.UNAVAILABLE
        assert worker.lines[1].startswith("error: RabbitMQ cancelled the consumer: its queue was deleted")
