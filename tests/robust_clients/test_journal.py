"""The producer's journal: what is in it is what happened, and what is no journal is left alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Finished, Script, run_script
from tests.support.queues import put, take

ROOT = Path(__file__).resolve().parents[2]
ORDERS = "robust_clients.orders"


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"robust_clients/{script}.py", *arguments, environ=environ, limit=120)


def told(done: Finished, code: ExitCode, *words: str) -> None:
    """The script failed with this code, and said why in one line with these words."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "shop.journal"


def test_sent_confirmed_and_received(journal: Path, environ: dict[str, str], settings: Settings) -> None:
    done = run("send_orders", str(journal), "--count=30", environ=environ)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(
        r" \[\*\] Sender \d+ sends orders 1-30\. To exit press CTRL\+C\n \[x\] All 30 orders are confirmed\n", done.out
    )
    lines = journal.read_text().splitlines()
    assert sorted(lines) == sorted(f"{event} {n}" for n in range(1, 31) for event in ("sent", "confirmed"))
    for number in range(1, 31):
        assert lines.index(f"sent {number}") < lines.index(f"confirmed {number}")
    with connect("test", settings) as connection:
        taken = take(connection.channel(), ORDERS, 30)
        assert [(properties.message_id, body) for properties, body in taken] == [
            (f"order-{n}", b"%d" % n) for n in range(1, 31)
        ]
        put(connection.channel(), ORDERS, *(body for _, body in taken))
    # Again, and more: only those that are not confirmed are sent.
    again = run("send_orders", str(journal), "--count=40", environ=environ)
    assert " sends orders 31-40. " in again.out
    for _ in range(2):
        checked = run("check_orders", str(journal), environ=environ)
        assert (checked.code, checked.err) == (0, "")
        assert checked.out.splitlines() == [
            " [x] confirmed, arrived: 1-40",
            " [x] confirmed, missing: none",
            " [x] in doubt, arrived: none",
            " [x] in doubt, missing: none",
            " [x] arrived more than once: none",
        ]


def test_a_confirmed_order_that_is_missing_is_named(journal: Path, environ: dict[str, str], settings: Settings) -> None:
    assert run("send_orders", str(journal), "--count=9", environ=environ).code == 0
    with connect("test", settings) as connection:
        channel = connection.channel()
        for number in range(1, 10):
            method, _, _ = channel.basic_get(ORDERS)
            assert method is not None
            # Somebody takes 2, 3, 4 and 9 away; the others go back as their channel ends.
            if number in (2, 3, 4, 9):
                channel.basic_ack(method.delivery_tag)
    checked = run("check_orders", str(journal), environ=environ)
    assert checked.code == ExitCode.NOT_CONFIRMED
    assert checked.err == "error: 4 confirmed orders are missing: 2-4, 9\n"
    assert " [x] confirmed, arrived: 1, 5-8\n" in checked.out


def test_a_full_queue(journal: Path, environ: dict[str, str], management: Management) -> None:
    management.set_policy("full", r"^robust_clients\.", {"max-length": 50, "overflow": "reject-publish"})
    done = run("send_orders", str(journal), "--count=2000", environ=environ)
    assert done.code == ExitCode.NOT_CONFIRMED
    assert done.err.count("\n") == 1
    assert "full" in done.err
    assert "start this again" in done.err
    checked = run("check_orders", str(journal), environ=environ)
    assert checked.code == 0
    assert " [x] confirmed, missing: none\n" in checked.out
    assert " [x] in doubt, arrived: none\n" in checked.out
    management.delete_policy("full")
    assert run("send_orders", str(journal), "--count=2000", environ=environ).code == 0
    checked = run("check_orders", str(journal), environ=environ)
    assert checked.out.startswith(" [x] confirmed, arrived: 1-2000\n [x] confirmed, missing: none\n")


def test_what_is_no_order_is_rejected(journal: Path, environ: dict[str, str], settings: Settings) -> None:
    assert run("send_orders", str(journal), "--count=3", environ=environ).code == 0
    rubbish = [b"", b"\xff\xfe", "٣".encode(), b"0", b"-1", b"7 ", b"9" * 30]
    with connect("a foreign client", settings) as connection:
        put(connection.channel(), ORDERS, *rubbish, properties=pika.BasicProperties(delivery_mode=2))
        checked = run("check_orders", str(journal), environ=environ)
        assert checked.code == 0
        assert checked.err.count("no order") == checked.err.count("\n") == len(rubbish)
        assert checked.out.startswith(" [x] confirmed, arrived: 1-3\n")
        assert take(connection.channel(), ORDERS, 0) == []


@pytest.mark.parametrize("script", ["send_orders", "check_orders"])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"dear diary\n", 1),
        (b"sent 1\nsent one\n", 2),
        (b"sent 1\nconfirmed 0\n", 2),
        (b"sent 1\n\nsent 2\n", 2),
        (b"sent 1\nlost 2\n", 2),
        (b"\x00\xff", 1),
        (b"no line end", 1),
    ],
    ids=["text", "no number", "order 0", "empty line", "unknown event", "bytes", "no line end"],
)
def test_what_is_no_journal_is_left_as_it_is(
    script: str, content: bytes, place: int, journal: Path, offline: dict[str, str]
) -> None:
    journal.write_bytes(content)
    told(run(script, str(journal), environ=offline), ExitCode.DATA, str(journal), f"line {place}", "another file")
    assert journal.read_bytes() == content


@pytest.mark.parametrize("script", ["send_orders", "check_orders"])
def test_a_journal_that_cannot_be_opened(script: str, offline: dict[str, str], tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/full"), tmp_path / "no" / "such" / "folder"):
        told(run(script, str(path), environ=offline), ExitCode.DATA, str(path))


def test_a_line_that_was_cut_short_does_not_count(journal: Path, environ: dict[str, str]) -> None:
    for torn in (b"confirmed 1", b"confirmed ", b"conf"):
        journal.write_bytes(b"sent 1\nconfirmed 1\nsent 2\nsent 17\n" + torn)
        done = run("send_orders", str(journal), "--count=20", environ=environ)
        assert " sends orders 2-20. " in done.out
        assert journal.read_text().splitlines()[4] == "sent 2"


def test_a_full_disk(journal: Path, environ: dict[str, str]) -> None:
    """The limit of a file's size, in blocks, stands in for it."""
    command = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", sys.executable, "robust_clients/send_orders.py"]
    done = subprocess.run(
        [*command, str(journal)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ExitCode.DATA
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: journal {str(journal)!r} cannot be written: ")
    # With room again, it goes on, and a confirmed order is not sent once more.
    again = run("send_orders", str(journal), environ=environ)
    assert again.code == 0
    checked = run("check_orders", str(journal), environ=environ)
    assert checked.out.startswith(" [x] confirmed, arrived: 1-10000\n [x] confirmed, missing: none\n")


def test_two_programs_do_not_share_a_journal(journal: Path, environ: dict[str, str]) -> None:
    with Script("robust_clients/send_orders.py", str(journal), "--count=1000000", environ=environ) as sender:
        sender.expect("Order 1000 is confirmed")
        for script in ("send_orders", "check_orders"):
            told(run(script, str(journal), environ=environ), ExitCode.DATA, "another program uses it")
        # Stopped in good order: what was in flight is confirmed, and noted.
        sender.interrupt()
        assert sender.wait() == 0
        assert all("[!]" not in line for line in sender.lines)
    checked = run("check_orders", str(journal), environ=environ)
    assert checked.code == 0
    _, missing, arrived_in_doubt, missing_in_doubt, twice = checked.out.splitlines()
    assert [missing, twice] == [" [x] confirmed, missing: none", " [x] arrived more than once: none"]
    # The one that was written down as the signal came: it is not sent, or sent while nobody notes its confirm any more.
    doubtful = [line.rpartition(": ")[2] for line in (arrived_in_doubt, missing_in_doubt)]
    assert "none" in doubtful
    assert all(re.fullmatch(r"none|\d+", numbers) for numbers in doubtful)
