"""Producer and broker die in mid-run: every confirmed message is there, and every other one is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import ExitCode
from tests.drills.brokers import Victim
from tests.drills.tally import SECTION
from tests.robust_clients.test_journal import run
from tests.support.process import Script
from tests.support.report import Report
from tour.vhost import environment

ACCOUNT = re.compile(r" \[x\] ([a-z ,]+): (.+)")
KILLS_OF_THE_PRODUCER = 4
KILLS_OF_THE_BROKER = 2


@dataclass
class Account:
    """What check_orders.py says: the numbers of the orders."""

    arrived: set[int]
    missing: set[int]
    doubt_arrived: set[int]
    doubt_missing: set[int]
    twice: set[int]

    def __str__(self) -> str:
        return (
            f"{len(self.arrived):,} confirmed and there, {len(self.missing)} confirmed and missing, "
            f"{len(self.doubt_arrived):,} not confirmed and there, "
            f"{len(self.doubt_missing):,} not confirmed and not there, {len(self.twice):,} twice"
        )


def check(journal: Path, environ: dict[str, str]) -> Account:
    done = run("check_orders", str(journal), environ=environ)
    assert (done.code, done.err) == (0, "")
    matches = [ACCOUNT.fullmatch(line) for line in done.out.splitlines()]
    assert [match[1] for match in matches if match] == [
        "confirmed, arrived",
        "confirmed, missing",
        "in doubt, arrived",
        "in doubt, missing",
        "arrived more than once",
    ]
    return Account(*(numbers(match[2]) for match in matches if match))


def numbers(text: str) -> set[int]:
    """What ``ranges`` has written: "1-3, 7"."""
    found: set[int] = set()
    for part in text.replace("none", "").split(", "):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def noted(journal: Path, event: str) -> set[int]:
    """The orders of which the file says this, read by ourselves."""
    return {int(line.split()[1]) for line in journal.read_text().splitlines() if line.startswith(event)}


@pytest.mark.long
def test_the_producer_is_killed(environ: dict[str, str], tmp_path: Path, report: Report) -> None:
    journal, count = tmp_path / "shop.journal", 20_000
    for _ in range(KILLS_OF_THE_PRODUCER):
        with Script("robust_clients/send_orders.py", str(journal), f"--count={count}", environ=environ) as sender:
            # The first line of this life, which is one in a thousand orders; it may get some further.
            sender.expect(r"Order \d+ is confirmed")
            sender.kill()
            assert sender.wait() == -9
    sent, confirmed = noted(journal, "sent"), noted(journal, "confirmed")
    account = check(journal, environ)
    # Every order that was sent is in the account, in one place.
    assert account.arrived == confirmed
    assert account.missing == set()
    assert account.doubt_arrived | account.doubt_missing == sent - confirmed
    last = run("send_orders", str(journal), f"--count={count}", environ=environ)
    assert last.code == 0
    final = check(journal, environ)
    report.add(SECTION, f"the producer killed {KILLS_OF_THE_PRODUCER} times: {count:,} orders; {final}")
    assert final.arrived == set(range(1, count + 1))
    assert final.missing == final.doubt_arrived == final.doubt_missing == set()
    # Those which had arrived without a word of it in the journal, and no others.
    assert account.doubt_arrived <= final.twice <= sent


@pytest.mark.long
@pytest.mark.xdist_group("victim")
@pytest.mark.timeout(400)
def test_the_broker_is_killed(shared_victim: Victim, tmp_path: Path, report: Report) -> None:
    broker = shared_victim
    journal = tmp_path / "shop.journal"
    environ = environment(broker.settings) | {"RABBITMQ_RECONNECT_TIMEOUT": "0.5"}
    in_doubt: set[int] = set()
    for _ in range(KILLS_OF_THE_BROKER):
        with Script("robust_clients/send_orders.py", str(journal), "--count=1000000", environ=environ) as sender:
            sender.expect(r"Order \d+ is confirmed")
            sender.expect(r"Order \d+ is confirmed")
            broker.kill()
            assert sender.wait() == ExitCode.NOT_CONFIRMED
        # The orders in doubt are named by the producer, in its one line, …
        named = re.fullmatch(
            r"error: sent and not confirmed: ([\d, -]+) \(message order-.*\); start this again", sender.lines[-1]
        )
        assert named, sender.lines
        assert not any("Traceback" in line for line in sender.lines)
        broker.start()
        sent, confirmed = noted(journal, "sent"), noted(journal, "confirmed")
        account = check(journal, environ)
        report.add(SECTION, f"the broker killed under send_orders.py: {len(sent):,} sent; {account}")
        assert account.missing == set()
        assert account.arrived == confirmed
        # … and by the account.
        assert account.doubt_arrived | account.doubt_missing == sent - confirmed == numbers(named[1])
        assert account.arrived.isdisjoint(account.doubt_arrived | account.doubt_missing)
        in_doubt |= sent - confirmed
    last = run("send_orders", str(journal), f"--count={max(sent)}", environ=environ)
    assert last.code == 0
    final = check(journal, environ)
    report.add(SECTION, f"the broker killed {KILLS_OF_THE_BROKER} times, all sent in the end: {final}")
    assert final.arrived == set(range(1, max(sent) + 1))
    assert final.missing == final.doubt_arrived == final.doubt_missing == set()
    assert final.twice <= in_doubt
