"""A pytest plugin: lines that tests want to be seen at the end of a run, passed or failed, alone or under xdist.

A test asks for the fixture ``report`` and calls ``report.add("Failure drills", "one line of counts")``. The lines
travel as the test's user properties, the one thing that pytest-xdist carries from its workers by itself.
"""

from __future__ import annotations

import pytest

LINES = pytest.StashKey[dict[str, list[tuple[str, str]]]]()
"""Section → (test, line), kept by the process that prints the summary."""

PROPERTY = "summary line"


class Report:
    """What one test adds to the summary of the run."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def add(self, section: str, line: str) -> None:
        """Print ``line`` under the title ``section`` at the end of the run; sections and lines are sorted by test."""
        self._properties.append((PROPERTY, (section, line)))


class _Collector:
    def __init__(self, config: pytest.Config) -> None:
        self.lines = config.stash.setdefault(LINES, {})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # The last phase's report has the properties of all phases.
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, (list, tuple)):
                # A tuple here, a list once it has come through JSON from a worker.
                section, line = value
                self.lines.setdefault(section, []).append((report.nodeid, line))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Lines for the summary of the run: see Report.add."""
    return Report(request.node.user_properties)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Collector(config), "summary-lines")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for section, lines in sorted(config.stash[LINES].items()):
        terminalreporter.section(section)
        # Stable: the lines of one test keep their order.
        for _, line in sorted(lines, key=lambda item: item[0]):
            terminalreporter.write_line(line)
