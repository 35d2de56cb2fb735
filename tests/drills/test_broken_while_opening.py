"""A connection breaks while it is being opened: that passes, and is not told as a refusal."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from pika.exceptions import AMQPError

from common.config import Settings
from common.connection import connect
from robust_pika import ConnectionFailure
from tests.drills.tally import SECTION
from tests.support.proxy import Proxy
from tests.support.report import Report

STEP_BYTES = 7
"""How much further into the handshake, which takes some 550 bytes, each next connection breaks."""


def test_a_connection_that_breaks_while_it_is_opened(settings: Settings, report: Report) -> None:
    failures: list[ConnectionFailure] = []
    limit = 0
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        while True:
            proxy.limit(limit)
            try:
                connection = connect("drill", through, deadline=0)
            except ConnectionFailure as failure:
                failures.append(failure)
                limit += STEP_BYTES
            else:
                break
        # It was given all that the handshake needs, and may break before it is closed.
        with suppress(AMQPError):
            connection.close()
    # pika guesses a wrong password here and a missing virtual host there: neither would be tried again.
    refusals = [str(failure) for failure in failures if not failure.transient]
    report.add(
        SECTION,
        f"broken while opened: {len(failures)} connections, after 0 to {limit} bytes, {len(refusals)} told as refusal",
    )
    assert refusals == []
    assert len(failures) > 50
