"""A thousand questions in flight, while a server or a connection breaks."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from common.config import Settings
from common.errors import ExitCode
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.report import Report
from tour.vhost import environment

SECTION = "Robust clients"
ASK = "robust_clients/ask_many.py"
SERVER = "rpc/rpc_server.py"


def answered(server: Script) -> int:
    return sum(line.startswith(" [.] fib(") for line in server.lines)


def test_a_server_is_killed(environ: dict[str, str], report: Report) -> None:
    with Script(SERVER, environ=environ) as victim, Script(SERVER, environ=environ) as other:
        victim.expect("waits for requests")
        other.expect("waits for requests")
        with Script(ASK, "--count", "1000", "20", environ=environ) as client:
            wait_until(lambda: answered(victim) > 50, every=0.01)
            victim.kill()
            client.expect(r"^ \[\.\] Got 6765: 1000 replies in ")
            assert client.wait() == 0
        in_all = answered(victim) + answered(other)
    report.add(SECTION, f"ask_many: a server killed, 1,000 questions, 1,000 replies; {in_all - 1000} answered twice")
    # The one that the server had in hand; it says so before it replies.
    assert in_all in (1000, 1001)


@pytest.mark.timeout(120)
def test_five_cuts(settings: Settings, environ: dict[str, str]) -> None:
    with Script(SERVER, environ=environ) as server, Proxy(settings.addresses[0]) as proxy:
        server.expect("waits for requests")
        cut_environ = environment(replace(settings, addresses=(proxy.address,)))
        with Script(ASK, "--count", "500", "20", environ=cut_environ) as client:
            for number in range(5):
                wait_until(lambda: answered(server) > 20 + 100 * number, every=0.01)  # noqa: B023  called here only
                assert wait_until(proxy.cut) == 1
                client.expect(r"connected again, calls asked again: \d+")
            client.expect(r"Got 6765: 500 replies in ", limit=60)
            assert client.wait() == 0


def test_without_a_server(environ: dict[str, str]) -> None:
    asked = run_script(ASK, "--count", "5", environ=environ)
    assert asked.code == ExitCode.UNROUTABLE
    assert re.fullmatch(r"error: no server is there for 'rpc.requests'[^\n]*\n", asked.err)
