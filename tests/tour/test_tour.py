"""`python -m tour` as a reader calls it, with the real examples and a real broker."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from common.config import Settings
from extras.management import Management
from tests.support.forked import ROOT
from tests.support.process import Finished, Script, run_script, wait_until
from tour.player import Event, Printed, load, play
from tour.scenario import parse
from tour.vhost import environment

EXAMPLE = "send_and_receive"


def tour(*arguments: str, environ: dict[str, str] | None = None) -> Finished:
    return run_script("-m", "tour", *arguments, environ=environ or dict(os.environ), limit=120)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str, str], Path]:
    """A function that copies the example, with some words of its README replaced by others, and returns the README."""

    def copy(words: str, others: str) -> Path:
        shutil.copytree(ROOT / EXAMPLE, tmp_path / EXAMPLE)
        readme = tmp_path / EXAMPLE / "README.md"
        text = readme.read_text(encoding="utf-8")
        assert words in text
        readme.write_text(text.replace(words, others, 1), encoding="utf-8")
        return readme

    return copy


def test_it_plays_with_every_line_labelled(environ: dict[str, str]) -> None:
    done = tour(EXAMPLE, environ=environ)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "2 receiver │ $ python send_and_receive/receive.py" in lines
    assert "2 receiver │  [x] Received 'Hello World!'" in lines
    assert "1          │  [x] Sent 'Hello World!'" in lines
    assert any(line.startswith(f"ok {EXAMPLE} (") for line in lines)
    told = [line for line in lines if " │ " in line]
    others = [line for line in lines if line and " │ " not in line]
    assert len(told) > 10
    assert all(line.startswith(("#", "ok ", "skipped: ", "One program", f"{EXAMPLE}/README.md")) for line in others)


def test_check_prints_a_line_for_each_example(environ: dict[str, str]) -> None:
    done = tour("--check", EXAMPLE, f"{EXAMPLE}/", environ=environ)
    assert (done.code, done.err) == (0, "")
    told = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert len(told) == 2
    assert all(line.startswith(f"ok {EXAMPLE} (") for line in told)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["no_such_example"], 2, "error: there is no example 'no_such_example'; there are: send_and_receive, "),
        (["--list", "--check"], 2, "error: argument --check: not allowed with argument --list; see python -m tour"),
        (["--colour"], 2, "error: unrecognized arguments: --colour; see python -m tour --help"),
    ],
)
def test_what_it_does_not_understand(arguments: list[str], code: int, told: str) -> None:
    done = tour(*arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(told)
    assert len(done.err.splitlines()) == 1


def test_without_a_broker_it_says_so_in_one_line() -> None:
    environ = {**os.environ, "AMQP_URL": "amqp://localhost:1", "RABBITMQ_MANAGEMENT_URL": "http://localhost:1"}
    done = tour("--check", EXAMPLE, environ=environ)
    assert done.code == 69
    assert done.out == ""
    assert done.err.startswith("error: the management API at http://localhost:1 cannot be reached")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "first", "diff"),
    [
        (
            (" [x] Received 'Hello World!'", " [x] Got 'Hello World!'"),
            "terminal 2 (receiver) printed another line:  [x] Got 'Hello World!'",
            ["- [x] Got 'Hello World!'", "+ [x] Received 'Hello World!'"],
        ),
        (
            (
                "$ python send_and_receive/send.py Good morning",
                "$ python send_and_receive/send.py --politely Good morning",
            ),
            "terminal 1 printed another line:  [x] Sent 'Good morning'",
            [
                "- [x] Sent 'Good morning'",
                "+error: unrecognized arguments: --politely; see send.py --help",
                "+(exit code 2)",
            ],
        ),
        (
            ("$ python send_and_receive/send.py", "$ python send_and_receive/gone.py"),
            "terminal 1 printed another line:  [x] Sent 'Hello World!'",
            ["- [x] Sent 'Hello World!'", "+(exit code 2)"],
        ),
    ],
)
def test_a_readme_that_has_rotted_is_red(
    copied: Callable[[str, str], Path], settings: Settings, change: tuple[str, str], first: str, diff: list[str]
) -> None:
    readme = copied(*change)
    folder = readme.parents[1]
    result = play(load(readme, folder), settings, folder=folder)
    lines = result.failure.splitlines()
    place, _, told = lines[0].partition(": ")
    assert told == first
    source, _, number = place.partition(":")
    assert source == f"{EXAMPLE}/README.md"
    assert readme.read_text(encoding="utf-8").splitlines()[int(number) - 1] == first.partition(": ")[2]
    assert [line for line in lines if line in diff] == diff


def test_each_run_has_a_virtual_host_of_its_own(settings: Settings) -> None:
    code = "from common.config import Settings; print(Settings.load().vhost)"
    scenario = parse(f"```console\n# Terminal 1\n$ python -c '{code}'\n…\n```\n", "this/test.md")
    seen = []
    with Management(settings, timeout=30) as api:

        def names() -> set[str]:
            return {vhost.name for vhost in api.vhosts()}

        def look(event: Event) -> None:
            if isinstance(event, Printed):
                assert event.line in names()
                seen.append(event.line)

        for _ in range(2):
            assert play(scenario, settings, on_event=look).failure == ""
        assert len({settings.vhost, *seen}) == 3
        assert all(name.startswith("tour.this_test.md.") for name in seen)
        assert not names() & set(seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(settings: Settings, number: signal.Signals) -> None:
    with Script("-m", "tour", "work_queue", environ=environment(settings)) as script:
        script.expect(r"\[\*\] Worker \d+ waits for tasks")
        # The first, and the one that waits; others come and go.
        worker, *children = psutil.Process(script.pid).children()
        assert "work_queue/worker.py" in worker.cmdline()
        vhost = Settings.load(worker.environ(), env_file=None).vhost
        begin = time.monotonic()
        os.kill(script.pid, number)
        assert script.wait() == 128 + number
        assert time.monotonic() - begin < 15
        assert "Traceback" not in "\n".join(script.lines)
        wait_until(lambda: not any(child.is_running() for child in children))
        with Management(settings, timeout=30) as api:
            assert vhost not in [found.name for found in api.vhosts()]
