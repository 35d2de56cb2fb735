"""The broker dies under publishing and consuming, again and again: every confirmed message is seen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.config import Settings
from common.connection import connect
from tests.drills.brokers import SETTLED, Unavailable, Victim, victim
from tests.drills.tally import SECTION
from tests.drills.traffic import Traffic, declare
from tests.support.report import Report

KILLS = 5
MESSAGES = 20_000


def test_5_broker_kills(tmp_path: Path, report: Report) -> None:
    try:
        with victim(Settings.load(), tmp_path) as broker:
            drill(broker, report)
    except Unavailable as reason:
        pytest.skip(str(reason))


def drill(broker: Victim, report: Report) -> None:
    settings = broker.settings
    traffic = Traffic(settings, settings, enough=lambda sent: sent >= MESSAGES)
    tally = traffic.tally
    with connect("drill", settings) as connection:
        declare(connection.channel())
    time.sleep(SETTLED)
    try:
        with traffic:
            for kill in range(1, KILLS + 1):
                due = MESSAGES * kill // (KILLS + 1)
                # In the middle of publishing, and of consuming: neither has come to its end.
                traffic.wait(
                    lambda: tally.confirmed >= due and tally.seen > 0,  # noqa: B023  called here only
                    60,
                    f"{due:,} messages",
                )
                broker.kill()
                tally.kills += 1
                broker.start()
    finally:
        report.add(SECTION, f"the broker killed: {tally}")
    assert tally.confirmed == tally.sent == MESSAGES
    assert tally.missing == []
    assert traffic.left(settings) == 0
