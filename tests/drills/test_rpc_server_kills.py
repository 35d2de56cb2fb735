"""Servers die in the middle of their calls, and others start: every call gets its own reply."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from common.config import Settings
from robust_pika import Call, RpcClient
from tests.drills.tally import SECTION, Tally
from tests.support.process import Script
from tests.support.report import Report

CALLS = 10_000
IN_FLIGHT = 20
KILLS = 12
SERVERS = 3
LIMIT = 120.0
QUEUE = "rpc.requests"


ANSWERS = ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34", "55", "89", "144", "233", "377", "610"]
"""fib(0), fib(1), …"""


def start(environ: Mapping[str, str]) -> Script:
    return Script("rpc/rpc_server.py", environ=environ)


@pytest.mark.long
@pytest.mark.xdist_group("heavy")
def test_rpc_servers_killed(environ: dict[str, str], settings: Settings, report: Report) -> None:
    tally = Tally()
    mixed_up: list[str] = []
    late = 0
    ended: list[BaseException] = []

    def ask_all() -> None:
        nonlocal late
        in_flight: deque[tuple[int, int, Call]] = deque()

        def finish() -> None:
            number, asked, call = in_flight.popleft()
            reply = client.wait(call).text()
            if reply == ANSWERS[asked]:
                tally.see(number)
            else:
                mixed_up.append(f"fib({asked}) = {reply}")

        try:
            with RpcClient("drill", settings) as client:
                for number in range(CALLS):
                    if len(in_flight) == IN_FLIGHT:
                        finish()
                    asked = random.randrange(len(ANSWERS))
                    in_flight.append((number, asked, client.send(QUEUE, b"%d" % asked, deadline=LIMIT)))
                    tally.sent += 1
                    tally.confirm(number)  # whatever was asked must be answered
                while in_flight:
                    finish()
                late = client.dropped
        except BaseException as error:
            ended.append(error)

    with ExitStack() as stack:
        servers = deque(stack.enter_context(start(environ)) for _ in range(SERVERS))
        for server in servers:
            server.expect("waits for requests")
        asking = threading.Thread(target=ask_all)
        asking.start()
        try:
            while tally.kills < KILLS:
                due = CALLS * (tally.kills + 1) // (KILLS + 1)
                tally.wait(lambda: bool(ended) or tally.seen >= due, LIMIT, f"{due} replies")  # noqa: B023  here only
                # The oldest one dies at once; a new one starts, while the others go on.
                servers.popleft().kill()
                tally.kills += 1
                servers.append(stack.enter_context(start(environ)))
                servers[-1].expect("waits for requests")
            tally.wait(lambda: not asking.is_alive(), LIMIT, "the last reply")
        finally:
            report.add(
                SECTION,
                f"rpc servers killed: {tally}; {IN_FLIGHT} in flight, {len(mixed_up)} mixed up, {late} replied twice",
            )
        for server in servers:
            server.terminate()
            assert server.wait() == 0
    assert ended == []
    assert mixed_up == []
    assert tally.seen == tally.sent == CALLS
