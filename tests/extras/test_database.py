"""The database beside the broker: what a URL may be, what is committed, and what is told of one that fails."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, func, select
from sqlalchemy.exc import IntegrityError

from common.config import Settings, SettingsError
from extras.database import DatabaseUnavailable, has_row_locks, open_engine, patiently, transaction

TABLES = MetaData()
NUMBERS = Table("numbers", TABLES, Column("number", Integer, primary_key=True))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path / 'numbers.sqlite'}")


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(NUMBERS)).scalar_one()


def count_in(engine: Engine) -> int:
    with transaction(engine) as connection:
        return count(connection)


def test_a_transaction_is_committed_or_it_never_was(settings: Settings) -> None:
    engine = open_engine(settings, TABLES)
    assert not has_row_locks(engine)
    with transaction(engine) as connection:
        connection.execute(NUMBERS.insert().values(number=1))
    with pytest.raises(KeyError), transaction(engine) as connection:  # noqa: PT012
        connection.execute(NUMBERS.insert().values(number=2))
        raise KeyError
    # What the example's own tables refuse is the example's own matter.
    with pytest.raises(IntegrityError), transaction(engine) as connection:  # noqa: PT012
        connection.execute(NUMBERS.insert().values(number=3))
        connection.execute(NUMBERS.insert().values(number=1))
    with transaction(open_engine(settings, TABLES)) as connection:
        assert count(connection) == 1


def test_threads_that_read_and_then_write_do_not_lock_each_other_out(settings: Settings) -> None:
    engine = open_engine(settings, TABLES)

    def add() -> None:
        for _ in range(25):
            with transaction(engine) as connection:
                connection.execute(NUMBERS.insert().values(number=count(connection)))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with transaction(engine) as connection:
        assert count(connection) == 100


def test_two_may_find_the_file_new_in_the_same_moment(tmp_path: Path) -> None:
    for number in range(30):
        own = Settings(database_url=f"sqlite:///{tmp_path / str(number)}")
        both = threading.Barrier(2)

        def open_it(own: Settings = own, both: threading.Barrier = both) -> int:
            both.wait()
            return count_in(open_engine(own, TABLES))

        with ThreadPoolExecutor() as pool:
            assert [opened.result(60) for opened in [pool.submit(open_it), pool.submit(open_it)]] == [0, 0]


def test_patience_ends_and_is_told_once(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    engine = open_engine(settings, TABLES)
    with closing(sqlite3.connect(settings.database_url.removeprefix("sqlite:///"))) as other:
        other.execute("DROP TABLE numbers")
    with pytest.raises(DatabaseUnavailable, match="no such table: numbers"):
        patiently(lambda: count_in(engine), patience=1)
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "no such table: numbers; trying again, for 1 s at most" in told


def test_ctrl_c_ends_patience_whatever_the_driver_says_of_it(settings: Settings) -> None:
    engine = open_engine(settings, TABLES)
    calls = []

    def work() -> None:
        calls.append(1)
        with transaction(engine) as connection:
            try:
                raise KeyboardInterrupt
            finally:  # as a driver that puts its connection back in order, and cannot
                connection.exec_driver_sql("SELECT * FROM nothing")

    with pytest.raises(KeyboardInterrupt):
        patiently(work)
    assert calls == [1]


def test_ctrl_c_while_a_connection_is_put_back_is_not_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(settings, TABLES)

    def reset(*_arguments: object) -> None:
        raise KeyboardInterrupt

    event.listen(engine, "reset", reset)
    with pytest.raises(KeyboardInterrupt):
        count_in(engine)
    assert caplog.records == []


def test_patience_ends_when_it_is_told_to_stop(settings: Settings) -> None:
    engine = open_engine(settings, TABLES)
    Path(settings.database_url.removeprefix("sqlite:///")).unlink()
    stop = threading.Event()
    stop.set()
    with pytest.raises(DatabaseUnavailable):
        patiently(lambda: count_in(engine), stop=stop)


@pytest.mark.parametrize(
    "url",
    ["secret", "postgresql://me:secret@host:port/x", "mysql://me:secret@host/x", "sqlite://", "sqlite:///:memory:"],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL ") as told:
        open_engine(Settings(database_url=url), TABLES)
    assert "secret" not in str(told.value)


def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'psycopg[binary]')")
    for url in ("postgres://me:secret@127.0.0.1:1/shop", "postgresql://me@127.0.0.1:1/shop?password=secret"):
        with pytest.raises(DatabaseUnavailable, match=r"^the database postgresql://me@127\.0\.0\.1:1/shop ") as told:
            open_engine(Settings(database_url=url), TABLES)
        assert "secret" not in str(told.value)


def test_the_url_comes_from_the_environment() -> None:
    assert Settings.load({"DATABASE_URL": "sqlite:////tmp/x"}, env_file=None).database_url == "sqlite:////tmp/x"
    assert Settings.load({}, env_file=None).database_url.endswith("/.database.sqlite")
    assert "secret" not in repr(Settings(database_url="postgresql://me:secret@host/x"))
