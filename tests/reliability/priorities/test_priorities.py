"""priorities, where its README does not look: each level on each version, who gets what, what starves, odd messages."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put
from tests.support.report import Report

FOLDER = "reliability/priorities"
CLASSIC = "priorities.tickets.classic"
QUORUM = "priorities.tickets.quorum"
DEAD = "priorities.tickets.dead_letters"
STRICT = (4, 3, 0)
TWO_LEVELS = (4, 0, 0)
SECTION = "Priorities"

each_kind = pytest.mark.parametrize("kind", ["classic", "quorum"])


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ, limit=120)


def desk(*arguments: str, environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/answer_tickets.py", *arguments, environ=environ)


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel, with the queues of the example declared by its own script."""
    assert run("open_ticket.py", environ=environ).code == 0
    with connect("test", settings) as connection:
        opened = connection.channel()
        assert [body for _, body in drain(opened, CLASSIC, 1)] == [b"the printer jams"]
        yield opened


def drain(channel: BlockingChannel, queue: str, count: int) -> list[tuple[BasicProperties, bytes]]:
    """Take ``count`` messages one after the other, each in its turn; fails if there are fewer."""
    taken: list[tuple[BasicProperties, bytes]] = []
    while len(taken) < count:
        # RabbitMQ may still be busy with what was put there.
        _method, properties, body = wait_until(
            lambda: got if (got := channel.basic_get(queue, auto_ack=True))[0] else None
        )
        taken.append((properties, body))
    assert channel.basic_get(queue)[0] is None
    return taken


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_help_and_their_own_folder(environ: dict[str, str]) -> None:
    for script in ("open_ticket.py", "answer_tickets.py", "compare_queues.py", "compare_prefetch.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("open_ticket.py", "no", "light", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("answer_tickets.py", environ=environ, folder=ROOT / FOLDER) as answer:
        answer.expect(r"^ \[x\] Answered 'no light'$")
        answer.terminate()
        assert answer.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("open_ticket.py", "--priority", "-1"),
        ("open_ticket.py", "--priority", "32"),
        ("open_ticket.py", "--priority", "high"),
        ("open_ticket.py", "--queue", "stream"),
        ("answer_tickets.py", "--rank", "101"),
        ("answer_tickets.py", "--prefetch", "0"),
        ("answer_tickets.py", "--work", "-1"),
        ("compare_queues.py", "--answer", "0"),
        ("compare_prefetch.py", "--prefetch", "1", "1001"),
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert re.search("must be a|invalid choice", result.err)


def ranks(came: list[int | None], *groups: set[int | None]) -> bool:
    """Whether all of the first group came before all of the second, and so on."""
    expected = [index for index, group in enumerate(groups) for priority in came if priority in group]
    found = [next(index for index, group in enumerate(groups) if priority in group) for priority in came]
    return found == expected


def arrivals(channel: BlockingChannel, queue: str, priorities: list[int | None]) -> list[int | None]:
    """Publish these priorities three times over, mixed; they as they come.

    Fails if those of one priority do not come as they went in.
    """
    sent = priorities * 3
    random.shuffle(sent)
    for number, priority in enumerate(sent):
        put(channel, queue, b"%d" % number, properties=BasicProperties(priority=priority))
    came = [(properties.priority, int(body)) for properties, body in drain(channel, queue, len(sent))]
    for priority in priorities:
        numbers = [number for found, number in came if found == priority]
        assert numbers == [number for number, found in enumerate(sent) if found == priority]
    return [priority for priority, _number in came]


def test_a_classic_queue_takes_the_highest_first_and_none_for_0(channel: BlockingChannel) -> None:
    came = arrivals(channel, CLASSIC, [None, 0, 1, 4, 8, 9, 10, 31, 255])
    assert ranks(came, {9, 10, 31, 255}, {8}, {4}, {1}, {0, None})


def test_a_quorum_queue_does_what_its_version_can(channel: BlockingChannel, broker_version: tuple[int, ...]) -> None:
    priorities = [None, 0, 3, 4, 5, 9, 30, 31, 255]
    came = arrivals(channel, QUORUM, priorities)
    if broker_version >= STRICT:
        assert ranks(came, {31, 255}, {30}, {9}, {5}, {4, None}, {3}, {0})
    elif broker_version >= TWO_LEVELS:
        high = [priority is not None and priority > 4 for priority in came]
        # 15 of 27 are high: two of them for one other, until there are no more.
        assert 9 <= sum(high[:15]) <= 11
        assert not any(high[24:])
    else:
        # Nothing overtakes anything; of equal ones we know that already.
        put(channel, QUORUM, b"first", properties=BasicProperties(priority=0))
        put(channel, QUORUM, b"second", properties=BasicProperties(priority=9))
        assert [body for _properties, body in drain(channel, QUORUM, 2)] == [b"first", b"second"]


def test_rabbitmq_refuses_the_argument_for_a_quorum_queue(channel: BlockingChannel) -> None:
    arguments = {"x-queue-type": "quorum", "x-max-priority": 9}
    with pytest.raises(ChannelClosedByBroker, match="invalid arg 'x-max-priority'"):
        channel.queue_declare("priorities.refused", durable=True, arguments=arguments)


def test_the_consumer_says_what_its_version_can(environ: dict[str, str], broker_version: tuple[int, ...]) -> None:
    rule = "no levels" if broker_version < TWO_LEVELS else "2 levels" if broker_version < STRICT else "32 levels"
    with desk("--queue", "quorum", environ=environ) as answer:
        answer.expect(rf"Priorities here \(RabbitMQ {re.escape('.'.join(map(str, broker_version)))}\): {rule}")


def normal_ones(result: Finished) -> list[int]:
    """How many normal tickets were answered: by the classic queue, the quorum queue, the two queues."""
    assert (result.code, result.err) == (0, "")
    return [int(count) for count in re.findall(r": (\d+) normal ones among the first \d+$", result.out, re.MULTILINE)]


def test_the_urgent_ones_first_or_in_a_share(
    environ: dict[str, str], broker_version: tuple[int, ...], report: Report, management: Management
) -> None:
    result = run("compare_queues.py", environ=environ)
    for line in result.out.splitlines():
        report.add(SECTION, f"RabbitMQ {'.'.join(map(str, broker_version))}: {line.removeprefix(' [x] ')}")
    classic, quorum, two = normal_ones(result)
    assert classic == 0
    if broker_version >= STRICT:
        assert quorum == 0
    elif broker_version >= TWO_LEVELS:
        assert 28 <= quorum <= 32
    else:
        assert quorum == 90
    # The share of what we hold; a slow machine does not fill it up in time each time.
    assert 10 <= two <= 60
    # Its queues are gone.
    assert [queue.name for queue in management.queues()] == []


def test_who_is_always_second_starves(environ: dict[str, str], broker_version: tuple[int, ...]) -> None:
    classic, quorum, two = normal_ones(run("compare_queues.py", "--no-end", "--answer", "240", environ=environ))
    assert classic == 0
    if broker_version >= STRICT:
        assert quorum == 0
    else:
        # All there are, or a third of what was answered.
        assert quorum == (90 if broker_version < TWO_LEVELS else pytest.approx(80, abs=4))
    # It would be 80; a slow machine does not fill up in time what we hold.
    assert two >= 30


def test_what_a_consumer_holds_is_not_overtaken(environ: dict[str, str]) -> None:
    result = run("compare_prefetch.py", "--prefetch", "1", "7", "50", environ=environ)
    assert (result.code, result.err) == (0, "")
    assert [re.findall(r"\d+", line) for line in result.out.splitlines()] == [["1", "1"], ["7", "7"], ["50", "50"]]


def test_a_ticket_that_takes_its_time_is_waited_for(environ: dict[str, str]) -> None:
    """After the end of a consumer, pika's process_data_events comes back at once with nothing, now and then."""
    result = run("compare_prefetch.py", "--prefetch", *["1"] * 60, environ=environ)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [" [x] prefetch 1: 1 answered before the urgent one"] * 60


@each_kind
def test_the_higher_consumer_gets_all_it_has_room_for(
    kind: str, environ: dict[str, str], channel: BlockingChannel
) -> None:
    queue = {"classic": CLASSIC, "quorum": QUORUM}[kind]
    count = 20

    def answered(script: Script) -> int:
        return sum("Answered" in line for line in script.lines)

    with (
        desk("--queue", kind, environ=environ) as trainee,
        # It has room for all, whether it has answered any or not.
        desk("--queue", kind, "--rank", "10", "--prefetch", f"{count}", environ=environ) as expert,
    ):
        trainee.expect("Waiting")
        expert.expect("Waiting")
        wait_until(lambda: channel.queue_declare(queue, passive=True).method.consumer_count == 2)
        put(channel, queue, *(b"%d" % number for number in range(count)))
        wait_until(lambda: answered(expert) == count)
        assert answered(trainee) == 0
        # When the expert has gone, the trainee gets them.
        expert.terminate()
        assert expert.wait() == 0
        put(channel, queue, b"one more")
        trainee.expect("Answered 'one more'")
        trainee.terminate()
        assert trainee.wait() == 0


@each_kind
def test_the_lower_consumer_gets_what_the_higher_has_no_room_for(
    kind: str, environ: dict[str, str], channel: BlockingChannel
) -> None:
    queue = {"classic": CLASSIC, "quorum": QUORUM}[kind]
    with (
        desk("--queue", kind, environ=environ) as trainee,
        desk("--queue", kind, "--rank", "10", "--work", "3600", environ=environ) as expert,
    ):
        trainee.expect("Waiting")
        expert.expect("Waiting")
        put(channel, queue, *(b"%d" % number for number in range(5)))
        assert [trainee.expect(r"Answered '(\d)'")[1] for _ in range(4)] == ["1", "2", "3", "4"]
        # It dies at its work, and that one goes to the trainee as well.
        expert.kill()
        trainee.expect("Answered '0'")


@each_kind
def test_a_message_that_is_given_back_keeps_its_priority(
    kind: str, channel: BlockingChannel, broker_version: tuple[int, ...]
) -> None:
    if kind == "quorum" and broker_version < STRICT:
        pytest.skip("strict priorities of quorum queues need RabbitMQ 4.3 or later")
    queue = {"classic": CLASSIC, "quorum": QUORUM}[kind]
    for body, priority in ((b"urgent", 9), (b"normal", 4)):
        put(channel, queue, body, properties=BasicProperties(priority=priority))
    method, _properties, body = channel.basic_get(queue)
    assert method is not None
    assert body == b"urgent"
    channel.basic_nack(method.delivery_tag, requeue=True)
    assert [body for _properties, body in drain(channel, queue, 2)] == [b"urgent", b"normal"]


def test_an_expired_message_is_only_looked_at_in_its_turn(channel: BlockingChannel) -> None:
    """In a classic queue. Until then it is neither delivered nor gone."""
    put(channel, CLASSIC, b"high", properties=BasicProperties(priority=9))
    put(channel, CLASSIC, b"low", properties=BasicProperties(priority=0, expiration="1"))
    put(channel, CLASSIC, b"low, later", properties=BasicProperties(priority=0))
    time.sleep(0.2)  # its millisecond is over
    assert (depth(channel, CLASSIC), depth(channel, DEAD)) == (3, 0)
    assert [body for _properties, body in drain(channel, CLASSIC, 2)] == [b"high", b"low, later"]
    assert [body for _properties, body in drain(channel, DEAD, 1)] == [b"low"]
