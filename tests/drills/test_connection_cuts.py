"""Connections break under publishing and consuming: every confirmed message is seen."""

from __future__ import annotations

import random
from dataclasses import replace

from common.config import Settings
from tests.drills.tally import SECTION
from tests.drills.traffic import Traffic
from tests.support.proxy import Proxy
from tests.support.report import Report

CUTS = 50
MESSAGES = 10_000


def test_50_connections_cut(settings: Settings, report: Report) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        traffic = Traffic(through, through, enough=lambda sent: tally.kills >= CUTS and sent >= MESSAGES)
        tally = traffic.tally
        try:
            with traffic:
                while tally.kills < CUTS:
                    # Something has gone through since the last cut, in both directions: both are connected again.
                    confirmed = tally.confirmed + random.randrange(1, 300)
                    seen = tally.seen + random.randrange(1, 300)
                    traffic.wait(
                        lambda: tally.confirmed >= confirmed and tally.seen >= seen,  # noqa: B023  called here only
                        30,
                        "messages after a cut",
                    )
                    tally.kills += proxy.cut(1)
        finally:
            report.add(SECTION, f"connections cut by a proxy: {tally}")
    assert tally.kills == CUTS
    assert tally.confirmed == tally.sent
    assert tally.missing == []
    assert traffic.left(settings) == 0
