"""ordered_processing, where its README does not look: journals, strange bodies, hand-over; and the drill."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take
from tests.support.report import Report

FOLDER = "reliability/ordered_processing"
SINGLE = "ordered_processing.single"
DEAD_LETTERS = "ordered_processing.dead_letters"
PARTITIONS = 4

ACCOUNTS = 100
MOVEMENTS = 200
KILLS = 20


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ)


def booker(way: str, journal: Path, *arguments: str, environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/book.py", way, str(journal), *arguments, environ=environ)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "bank.journal"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def booked(journal: Path) -> list[str]:
    return journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []


def test_help_and_their_own_folder(environ: dict[str, str], journal: Path) -> None:
    for script in ("send_movements.py", "book.py", "check_order.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("send_movements.py", "single", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("book.py", "single", str(journal), environ=environ, folder=ROOT / FOLDER) as book:
        book.expect(r"^ \[x\] Booked ada 6$")
        book.terminate()
        assert book.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("send_movements.py", "sideways"),
        ("send_movements.py", "single", "--count", "0"),
        ("send_movements.py", "single", "--accounts", "many"),
        ("book.py", "partition-5", "bank.journal"),
        ("book.py", "single", "bank.journal", "--prefetch", "0"),
        ("book.py", "single", "bank.journal", "--slow", "-1"),
        ("check_order.py",),
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run(arguments[0], *arguments[1:], environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "code", "lines"),
    [
        ("1 ada\n2 ada\n", 0, [" [x] 2 movements, accounts: 1; 0 missing, 0 booked again, 0 out of order"]),
        # Killed after 3 was booked and before 2 was acknowledged: it begins again with 2.
        (
            "1 a\n2 a\n3 a\n2 a\n3 a\n4 a\n",
            0,
            [" [x] 4 movements, accounts: 1; 0 missing, 2 booked again, 0 out of order"],
        ),
        (
            "2 a\n1 b\n1 a\n3 a\n",
            65,
            [
                " [ ] a: 2 was booked before 1",
                " [x] 4 movements, accounts: 2; 0 missing, 0 booked again, 1 out of order",
            ],
        ),
        (
            "1 a b\n4 a b\n3 a b\n",
            65,
            [
                " [ ] a b: 4 was booked before 2",
                " [ ] a b: 3 was booked before 2",
                " [x] 3 movements, accounts: 1; 1 missing, 0 booked again, 2 out of order",
            ],
        ),
        ("", 0, [" [x] 0 movements, accounts: 0; 0 missing, 0 booked again, 0 out of order"]),
    ],
    ids=["in order", "again", "too early", "missing", "empty"],
)
def test_what_a_journal_says(text: str, code: int, lines: list[str], journal: Path, offline: dict[str, str]) -> None:
    journal.write_text(text, encoding="utf-8")
    result = run("check_order.py", str(journal), environ=offline)
    assert (result.code, result.out.splitlines()) == (code, lines)
    assert result.err == (f"error: {journal} is not in order\n" if code else "")


def test_what_is_no_journal(tmp_path: Path, offline: dict[str, str]) -> None:
    for content in (b"1 ada\ntwo ada\n", b"\xff", b"1\n"):
        (tmp_path / "file").write_bytes(content)
        result = run("check_order.py", str(tmp_path / "file"), environ=offline)
        assert (result.code, result.out, result.err.count("\n")) == (ExitCode.DATA, "", 1)
    result = run("check_order.py", str(tmp_path / "none"), environ=offline)
    assert result.err == f"error: the journal {tmp_path / 'none'} cannot be read: No such file or directory\n"
    result = run("book.py", "single", str(tmp_path), environ=offline)
    assert (result.code, result.out) == (ExitCode.DATA, "")
    assert result.err == f"error: the journal {tmp_path} cannot be written: Is a directory\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, a disk that is always full")
def test_what_cannot_be_noted_is_not_lost(environ: dict[str, str], channel: BlockingChannel) -> None:
    assert run("send_movements.py", "single", "--count", "1", environ=environ).code == 0
    result = run("book.py", "single", "/dev/full", environ=environ)
    assert result.code == ExitCode.OUTPUT
    assert result.err == "error: the journal /dev/full cannot be written: No space left on device\n"
    assert [body for _properties, body in take(channel, SINGLE, 1)] == [b'{"account":"ada","number":1}']


def test_what_is_no_movement_goes_to_the_dead_letters(
    journal: Path, environ: dict[str, str], channel: BlockingChannel
) -> None:
    bodies = [b"", b"\xff", b"{", b"7", b'{"account": "ada"}', b'{"account": "ada", "number": "1"}']
    bodies += [b'{"account": "ada", "number": true}', b'{"account": "\\ud800", "number": 1}']
    with booker("single", journal, environ=environ) as book:
        book.expect("Waiting")
        put(channel, SINGLE, *bodies, b'{"account": "ada", "number": 1}')
        book.expect(r"^ \[x\] Booked ada 1$")
        assert [body for _properties, body in take(channel, DEAD_LETTERS, len(bodies))] == bodies
        book.terminate()
        assert book.wait() == 0
    assert booked(journal) == ["1 ada"]


def test_a_hand_over_leaves_nothing_out_and_does_nothing_twice(journal: Path, environ: dict[str, str]) -> None:
    def start() -> Script:
        # Slow enough for four hand-overs before all is done.
        return booker("single", journal, "--prefetch", "3", "--slow", "0.02", environ=environ)

    waiting = [start(), start()]
    try:
        for script in waiting:
            script.expect("Waiting")
        assert run("send_movements.py", "single", "--count", "1000", environ=environ).code == 0
        for _ in range(4):
            before = len(booked(journal))
            wait_until(lambda: len(booked(journal)) > before)  # noqa: B023  called here only
            assert before < 1000
            waiting[0].terminate()
            assert waiting.pop(0).wait() == 0
            waiting.append(start())
            waiting[-1].expect("Waiting")
        wait_until(lambda: len(booked(journal)) >= 1000, 120)
    finally:
        for script in waiting:
            script.kill()
    assert booked(journal) == [f"{number} ada" for number in range(1, 1001)]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("heavy")
def test_each_account_in_order_whoever_is_killed(journal: Path, environ: dict[str, str], report: Report) -> None:
    """Two workers for each partition; every second, one of the eight is killed and another one started, 20 times."""
    began = time.monotonic()
    due = ACCOUNTS * MOVEMENTS

    def start(partition: int) -> Script:
        return booker(f"partition-{partition}", journal, environ=environ)

    sent = run("send_movements.py", "partitions", f"--accounts={ACCOUNTS}", f"--count={MOVEMENTS}", environ=environ)
    assert sent.code == 0
    workers = [(partition, start(partition)) for partition in range(1, PARTITIONS + 1) for _ in range(2)]
    kills = 0
    try:
        while kills < KILLS and len(set(booked(journal))) < due:
            time.sleep(random.uniform(0.5, 1.5))
            partition, unlucky = workers.pop(random.randrange(len(workers)))
            unlucky.kill()
            kills += 1
            workers.append((partition, start(partition)))
        wait_until(lambda: len(set(booked(journal))) >= due, 400, every=0.5)
        for _, script in workers:
            script.expect("Waiting")  # the last one has just begun
            script.terminate()
        assert [script.wait() for _, script in workers] == [0] * len(workers)
    finally:
        for _, script in workers:
            script.kill()
    result = run("check_order.py", str(journal), environ=environ)
    report.add(
        "Failure drills",
        f"ordered processing: {ACCOUNTS} accounts × {MOVEMENTS} movements, {PARTITIONS} partitions, {kills} kills; "
        f"{result.out.strip().splitlines()[-1].removeprefix(' [x] ')}, {time.monotonic() - began:.1f} s",
    )
    assert kills >= 5
    assert result.code == 0, result.out
    assert f"{due} movements, accounts: {ACCOUNTS}; 0 missing" in result.out
