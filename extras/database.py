"""A database beside the broker, through SQLAlchemy: SQLite by default, PostgreSQL by URL; readable errors."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_message,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    wait_random,
    wait_random_exponential,
)

from common import console
from common.config import Settings, SettingsError
from common.errors import ExitCode, came_of_an_interrupt
from robust_pika.errors import StopConsuming

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""What a DATABASE_URL may begin with, and SQLAlchemy's name for it."""

ANSWER_SECONDS = 5
"""How long one attempt waits for a lock of SQLite's, or for PostgreSQL to accept a connection."""

Result = TypeVar("Result")


class DatabaseUnavailable(StopConsuming):
    """The database is gone, locked, or not what it was; the text is one line, without the password."""

    exit_code = ExitCode.UNAVAILABLE


def open_engine(settings: Settings, tables: MetaData) -> Engine:
    """SQLAlchemy's engine for ``settings.database_url``, with these tables, which are created if they are missing.

    Raises SettingsError for a URL that cannot be used, DatabaseUnavailable for a database that cannot.
    """
    url = _read(settings.database_url)
    # Short commands against a server that may restart: ask whether a connection of the pool is still good.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": ANSWER_SECONDS}}
    else:
        options["connect_args"] = {"connect_timeout": ANSWER_SECONDS}
    try:
        engine = create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"DATABASE_URL needs the Python package {error.name!r}; install it with: pip install 'psycopg[binary]'"
        ) from None
    pool = type(engine.pool)
    logging.getLogger(f"{pool.__module__}.{pool.__name__}").addFilter(_is_no_interrupt)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "checkout", _see_that_the_file_is_there)
        event.listen(engine, "begin", _begin_at_once)
    with _readable(engine):
        try:
            tables.create_all(engine)
        except (IntegrityError, ProgrammingError):
            # Another program created them between our look and our attempt.
            tables.create_all(engine)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction, which is committed at the end, or rolled back if anything is raised inside.

    Raises DatabaseUnavailable. Whether a commit has happened whose answer was lost, nobody knows.
    """
    with _readable(engine), engine.begin() as connection:
        yield connection


def patiently(work: Callable[[], Result], *, patience: float = 30.0, stop: threading.Event | None = None) -> Result:
    """What ``work`` returns; it is called again while it raises DatabaseUnavailable, and that is told once.

    For at most ``patience`` seconds, or until ``stop`` is set; then it is raised here. What ``work`` committed may be
    committed when it is called again (only the answer was lost), so it must be harmless to call twice.
    """
    over = stop or threading.Event()

    def tell_once(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            console.warn(f"{state.outcome.exception()}; trying again, for {patience:g} s at most")

    retrying = Retrying(
        retry=retry_if_exception_type(DatabaseUnavailable),
        stop=lambda state: over.is_set() or (state.seconds_since_start or 0.0) >= patience,
        wait=wait_random_exponential(multiplier=0.1, max=2),
        sleep=sleep_using_event(over),
        before_sleep=tell_once,
        reraise=True,
    )
    return retrying(work)


def has_row_locks(engine: Engine) -> bool:
    """Whether a transaction can hold single rows (PostgreSQL), or only the whole database (SQLite)."""
    return engine.dialect.name != "sqlite"


def _read(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not its own words: they may quote the password.
        raise SettingsError(
            "DATABASE_URL cannot be read; write sqlite:////path/of/a/file or postgresql://user:password@host/database"
        ) from None
    name = url.get_backend_name()
    if name not in DRIVERS:
        raise SettingsError(f"DATABASE_URL names {name!r}, which is not supported; use sqlite or postgresql")
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise SettingsError("DATABASE_URL names no file; several programs share it: write sqlite:////path/of/a/file")
    return url.set(drivername=DRIVERS[name])


@contextmanager
def _readable(engine: Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a matter between the example and its tables
    except (DBAPIError, PoolTimeout) as error:
        if came_of_an_interrupt(error):
            # Not to be tried again: somebody wants the program to end.
            raise KeyboardInterrupt from None
        why = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DatabaseUnavailable(f"the database {_shown(engine.url)} cannot be used: {why:.300}") from error


def _shown(url: URL) -> str:
    # Without the password, wherever in the URL it may stand.
    name = url.get_backend_name()
    return URL.create(name, url.username, host=url.host, port=url.port, database=url.database).render_as_string()


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    # SQLAlchemy shows the traceback of a Ctrl-C that comes while it puts a connection back.
    return not (record.exc_info and came_of_an_interrupt(record.exc_info[1]))


def _set_up_sqlite(connection: Any, record: Any) -> None:
    # Python's driver would begin transactions by itself, and later than we want.
    connection.isolation_level = None
    # Readers do not wait for a writer, nor it for them. Of two programs that find a new file in the same moment, SQLite
    # refuses one at once, whatever its time limit for locks.
    for attempt in Retrying(
        retry=retry_if_exception_message(match="database is locked"),
        stop=stop_after_delay(ANSWER_SECONDS),
        wait=wait_random(0.01, 0.05),
        reraise=True,
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")
    # A commit is on the disk, even if the power fails.
    connection.execute("PRAGMA synchronous=FULL")
    record.info["file"] = _file(connection)


def _see_that_the_file_is_there(connection: Any, record: Any, _proxy: object) -> None:
    # SQLite goes on with a file that was deleted, and all that is committed there is lost.
    if _file(connection) != record.info["file"]:
        raise DisconnectionError("its file was deleted or replaced")


def _file(connection: Any) -> tuple[int, int] | None:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin_at_once(connection: Connection) -> None:
    # With the lock for writing: two that have read already and both want to write would lock each other out.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
