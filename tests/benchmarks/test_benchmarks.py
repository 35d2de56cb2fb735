"""The benchmarks: every section with tiny counts, what they write, and what they say when they cannot."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import publishers
from benchmarks.measure import Lab, Row, Table, tables_from
from benchmarks.publishing import complete
from benchmarks.report import README, RESULTS, NoResults, filled, table_lines
from benchmarks.yardstick import compiled
from common.config import Settings
from extras.management import Management
from robust_pika import ConnectionFailure

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {
    "publishing": {"publishing-quorum", "publishing-stream", "window"},
    "consuming": {"consuming-quorum", "consuming-stream", "prefetch"},
    "frames": {"frames-publishing", "frames-consuming"},
    "latency": {"latency-p50", "latency-p99", "latency-p99.9"},
    "rpc": {"rpc"},
    "scale": {"waiting", "computing", "fanout", "queues", "backlog", "backlog-memory"},
    "cost": {"start", "first-message", "memory", "steady"},
}


def benchmarks(*arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_with_tiny_counts(
    section: str, environ: dict[str, str], configured: Settings, tmp_path: Path
) -> None:
    tiny = ["--quick", "--rounds", "1", "--seconds", "0.01", "--steady", "1", "--results", str(tmp_path)]
    with Management(configured, timeout=60) as api:
        done = benchmarks(section, *tiny, environ=environ)
        assert (done.returncode, done.stderr) == (0, "")
        [path] = tmp_path.glob("*.json")
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["versions"]["RabbitMQ"] == api.version()
    tables = {table.key: table for table in tables_from(data)}
    assert set(tables) >= SECTIONS[section]
    for table in tables.values():
        assert table.rows, table.key
        for row in table.rows:
            assert row.values, (table.key, row.name)
            # The memory of a queue is counted every five seconds: it may not be known yet.
            assert all(value > 0 or table.key in ("backlog-memory", "memory") for value in row.values), (table.key, row)
        assert table.title in done.stdout
    assert data["goals"]
    if section not in ("frames", "scale") and not find_spec("aio_pika"):
        assert "aio_pika is not installed: pip install -r benchmarks/requirements.txt" in data["skipped"]
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith("# RabbitMQ")
    if find_spec("matplotlib"):
        plots = {plot.name for plot in tmp_path.glob("*.svg")}
        assert len(plots) == len(tables)


def test_a_section_that_does_not_exist(environ: dict[str, str]) -> None:
    done = benchmarks("publishing", "speed", environ=environ)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: there is no section 'speed'; there are publishing, consuming, frames, latency, rpc, scale, cost; "
        "see __main__.py --help"
    ]


def test_no_broker(environ: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"amqp://guest:s3cret@127.0.0.1:{port}/"
    done = benchmarks("--quick", environ={**environ, "AMQP_URL": url, "RABBITMQ_CONNECT_TIMEOUT": "1"})
    assert done.returncode == 69
    assert done.stderr.splitlines() == [f"error: nothing answers at 127.0.0.1:{port}; start RabbitMQ with: make broker"]


def lab(settings: Settings) -> Lab:
    return Lab(settings, "3.10.8", rounds=1, seconds=0.01, quick=True, steady=1)


def test_a_benchmark_that_loses_messages_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.publishing.LIMIT", 0.5)
    with lab(settings).queue() as queue:
        publishers.ours(settings, queue, 7, b"x")
        complete(lab(settings), queue, 7)
        with pytest.raises(ConnectionFailure, match="7 of 8 messages are in queue"):
            complete(lab(settings), queue, 8)


def test_the_c_client_counts_what_it_confirms(settings: Settings) -> None:
    here = lab(settings)
    with compiled(here) as yardstick, here.queue() as queue:
        if yardstick is None:
            pytest.skip(here.skipped[0])
        assert yardstick.publish(queue, 2500, 100, 1000) > 0
        complete(here, queue, 2500)
        assert yardstick.consume(queue, 2500, 200, 50) > 0
        complete(here, queue, 0)


def test_without_a_compiler_the_c_client_is_left_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    here = lab(settings)
    with compiled(here) as yardstick:
        assert yardstick is None
    assert here.skipped == [
        "the C yardstick needs gcc and librabbitmq (Debian, Ubuntu: sudo apt-get install gcc librabbitmq-dev)"
    ]


def test_ratios_are_those_of_the_rounds() -> None:
    table = Table("key", "Title", "messages/s", [Row("ours", [10, 300, 40]), Row("it", [5, 100, 4])], ours="ours")
    assert table.ratio("it") == 3
    assert table.ratio("nobody") is None
    assert list(table_lines(table)) == [
        "|  | messages/s | ours ÷ it |",
        "| --- | ---: | ---: |",
        "| ours | 40 (10 – 300) |  |",
        "| it | 5 (4 – 100) | × 3.0 |",
    ]


def test_the_report_fills_in_what_stands_between_its_lines(tmp_path: Path) -> None:
    data = {
        "command": "python -m benchmarks",
        "date": "2026-01-01",
        "minutes": 5,
        "rounds": 1,
        "machine": {"memory": "1 GiB"},
        "versions": {"RabbitMQ": "3.10.8"},
        "tables": [
            {
                "key": "window",
                "title": "Window",
                "unit": "messages/s",
                "ours": "",
                "axis": "window",
                "rows": [
                    {"name": "ours", "values": [1234.5], "x": 1000.0},
                    {"name": "ours", "values": [7.0], "x": 1.0},
                ],
            }
        ],
        "goals": [{"text": "be fast", "goal": 15, "measured": 16.0, "below": False, "met": True}],
        "skipped": [],
    }
    (tmp_path / "3.10.json").write_text(json.dumps(data), encoding="utf-8")
    text = "# Title\n<!-- window 3.10 -->\nold\n<!-- /window -->\nkept\n<!-- goals 3.10 -->\n<!-- /goals -->\n"
    expected = [
        "# Title",
        "<!-- window 3.10 -->",
        "",
        "| window | messages/s |",
        "| --- | ---: |",
        "| 1 | 7 |",
        "| 1,000 | 1,234 |",
        "",
        "<!-- /window -->",
        "kept",
        "<!-- goals 3.10 -->",
        "",
        "| what | aimed at | measured | reached |",
        "| --- | ---: | ---: | ---: |",
        "| be fast | ≥ 15 | 16.00 | yes |",
        "",
        "<!-- /goals -->",
    ]
    once = filled(text, tmp_path)
    assert once.splitlines() == expected
    assert filled(once, tmp_path) == once
    with pytest.raises(NoResults, match="no table 'size'"):
        filled("<!-- size 3.10 -->\n<!-- /size -->", tmp_path)
    with pytest.raises(NoResults, match=r"no results for RabbitMQ 4\.3"):
        filled("<!-- size 4.3 -->\n<!-- /size -->", tmp_path)


def test_the_readme_shows_the_figures_that_were_measured() -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text, "run python -m benchmarks --report"
    assert text.count("<!-- /") >= 8
    for picture in RESULTS.glob("*.svg"):
        assert "<svg" in picture.read_text(encoding="utf-8")
