"""What the tests share: a broker that answers, and a virtual host for each test."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Address, Settings
from common.connection import connect, server_version
from common.errors import Failure, RobustPikaError, described
from extras.management import Management
from tour.vhost import environment, fresh_vhost

pytest_plugins = [
    "tests.drills.brokers",
    "tests.support.own_broker",
    "tests.support.report",
    "tests.support.versions",
]

STARTING = 30.0
"""Seconds that a broker which has just been started may take to answer."""


LONG = "takes long; to run it as well: make test LONG=1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take long, too")


def pytest_configure() -> None:
    # A shell starts what is put in the background deaf to Ctrl-C, and so would be every script that a test starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(LONG))
    # What takes long, and waits for most of it, begins first: others can work meanwhile, and at the end no worker is
    # alone with it. The order is otherwise kept.
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None and not waits(item))


def waits(item: pytest.Item) -> bool:
    """Whether a test has long waits in it."""
    return "drills" in item.path.parts or item.path.name == "test_scenarios.py"


def pytest_collection_finish() -> None:
    # What is there by now stays to the end; Python need not look through it for garbage again and again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def configured() -> Settings:
    """The settings of the environment and ``.env``, as they are."""
    return Settings.load()


@pytest.fixture(scope="session")
def reachable(configured: Settings) -> tuple[int, int, int] | str:
    """The version of the broker that answers, or one line that says why none does; asked once in a session."""
    # The failure says it all; pika's tracebacks beside it would hide it.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        with connect("tests", configured) as connection:
            version = server_version(connection)
        with Management(configured, timeout=STARTING) as api:
            api.ping()
    except (Failure, RobustPikaError) as error:
        return f"no RabbitMQ for the tests: {described(error)[0]}"
    finally:
        logging.getLogger("pika").setLevel(logging.NOTSET)
    return version


@pytest.fixture
def broker_version(request: pytest.FixtureRequest, reachable: tuple[int, int, int] | str) -> tuple[int, int, int]:
    """The broker's version, such as (3, 10, 8). Without a broker the whole run ends here, with one line."""
    if isinstance(reachable, str):
        request.session.shouldfail = reachable
        pytest.fail(reachable, pytrace=False)
    return reachable


@pytest.fixture
def settings(request: pytest.FixtureRequest, configured: Settings) -> Iterator[Settings]:
    """The configured broker with a virtual host of this test's own, deleted after the test."""
    request.getfixturevalue("broker_version")
    with fresh_vhost(configured, f"test.{request.node.name}") as own:
        yield own


@pytest.fixture
def management(settings: Settings) -> Iterator[Management]:
    """The management API, for the virtual host of this test."""
    with Management(settings, timeout=STARTING) as api:
        yield api


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    """The environment for a script that is to use the virtual host of this test, and the defaults for the rest."""
    return environment(settings)


@pytest.fixture
def offline(configured: Settings, tmp_path: Path) -> dict[str, str]:
    """The environment for a script that is to end before it asks a broker for anything: nobody is there."""
    nobody = Address("127.0.0.1", 1)
    return environment(
        replace(configured, addresses=(nobody,), tls=None, database_url=f"sqlite:///{tmp_path / 'database.sqlite'}")
    )
