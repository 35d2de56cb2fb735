"""The ways to publish, what RabbitMQ answers, and what the scripts make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Finished, run_script
from tests.support.queues import take
from tests.support.report import Report

MEASURED = "publisher_confirms.measured"
WAYS = ("one_at_a_time", "in_batches", "pipelined", "in_transactions")


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"publisher_confirms/{script}.py", *arguments, environ=environ, limit=120)


def told(done: Finished, code: ExitCode, *words: str) -> None:
    """The script failed with this code, and said why in one line with these words."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


@pytest.mark.parametrize("way", WAYS)
def test_every_message_is_in_the_queue_once_and_says_who_it_is(
    way: str, environ: dict[str, str], settings: Settings
) -> None:
    # No multiple of the batch: the last one is not full.
    done = run(way, "--count=250", environ=environ)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r" \[x\] 250 messages (confirmed|committed), .*: [\d,]+ per second\n", done.out)
    with connect("test", settings) as connection:
        taken = take(connection.channel(), MEASURED, 250)
    assert {properties.delivery_mode for properties, _ in taken} == {2}
    assert len({properties.message_id for properties, _ in taken}) == 250
    first = 1 if way.startswith("in_") else 0
    assert [body.decode() for _, body in taken] == [f"message {number}" for number in range(first, first + 250)]


@pytest.mark.long
@pytest.mark.xdist_group("heavy")
def test_the_rates_in_one_table(environ: dict[str, str], broker_version: tuple[int, int, int], report: Report) -> None:
    # Into a queue that is not empty: each way is to begin with an empty one.
    assert run("one_at_a_time", "--count=10", environ=environ).code == 0
    done = run("publisher_confirms", "--rounds=2", environ=environ)
    assert (done.code, done.err) == (0, "")
    title, *rows = done.out.splitlines()
    assert title.split() == ["WAY", "MESSAGES", "PER", "SECOND", "RATIO"]
    found = [re.fullmatch(r"(.+?) +([\d,]+) +([\d,]+) +([\d.]+)", row) for row in rows]
    counts = [match[2] for match in found if match]
    rates = {match[1]: int(match[3].replace(",", "")) for match in found if match}
    ratios = {match[1]: float(match[4]) for match in found if match}
    assert counts == ["500", "5,000", "5,000", "500", "5,000"]
    version = ".".join(map(str, broker_version))
    for row in rows:
        report.add("Publisher confirms: the rates", f"{version}  {row}")
    assert list(rates) == [
        "one at a time",
        "in batches of 100",
        "pipelined",
        "in transactions of 1",
        "in transactions of 100",
    ]
    for way, ratio in ratios.items():
        # The rates are printed without their decimals.
        assert ratio == pytest.approx(rates[way] / rates["one at a time"], rel=0.01, abs=0.1)
    # Measured: 8 to 15, 15 to 25, and 0.5 to 1.2. A busy machine moves them, and turns none of them round.
    assert ratios["in batches of 100"] > 2
    assert ratios["pipelined"] > 3
    assert ratios["in transactions of 1"] < ratios["in batches of 100"]


def test_every_answer(environ: dict[str, str], settings: Settings, management: Management) -> None:
    done = run("answers", environ=environ)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        " [x] to a queue with room: confirmed",
        " [x] to the same queue, which is full now: nacked",
        " [x] to no queue, mandatory: returned, 312 NO_ROUTE",
        " [x] to no queue, not mandatory: confirmed",
        " [x] to an exchange that is not there: refused, "
        f"404 NOT_FOUND - no exchange 'publisher_confirms.nowhere' in vhost '{settings.vhost}'",
    ]
    assert management.queues() == []


@pytest.mark.parametrize("script", [*WAYS, "publisher_confirms"])
def test_a_queue_that_is_full(script: str, environ: dict[str, str], settings: Settings, management: Management) -> None:
    management.set_policy("full", r"^publisher_confirms\.", {"max-length": 50, "overflow": "reject-publish"})
    done = run(script, "--count=500", environ=environ)
    if script == "in_transactions":
        # RabbitMQ says that it has committed them, and the quorum queue has dropped them. The README warns of it.
        assert done.code == 0
        with connect("test", settings) as connection:
            kept = connection.channel().queue_declare(MEASURED, passive=True).method.message_count
        assert 50 <= kept < 100
        return
    told(done, ExitCode.NOT_CONFIRMED, "full")
    # It stays full, and is told again at the start.
    if script != "publisher_confirms":
        told(run(script, "--count=1", environ=environ), ExitCode.NOT_CONFIRMED, "full")


BAD = ("0", "-1", "many", "9" * 30)


@pytest.mark.parametrize(
    ("script", "option"),
    [
        *((way, "--count") for way in (*WAYS, "publisher_confirms", "send_orders")),
        ("publisher_confirms", "--rounds"),
        ("in_batches", "--batch"),
        ("in_transactions", "--batch"),
        ("pipelined", "--window"),
    ],
)
def test_a_number_that_makes_no_sense(script: str, option: str, offline: dict[str, str], tmp_path: Path) -> None:
    journal = [str(tmp_path / "journal")] if script == "send_orders" else []
    for number in BAD:
        done = run(script, *journal, f"{option}={number}", environ=offline)
        told(done, ExitCode.USAGE, option, "a whole number from 1 to", repr(number), "--help")
