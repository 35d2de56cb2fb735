"""A PostgreSQL of the tests' own: the installed server, run privately, with its data in a folder that goes again."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from broker.ports import Ports


class Unavailable(Exception):
    """No PostgreSQL can be had on this machine; the text says why."""


class PostgreSql:
    """A running server, which ``stop`` and ``start`` stop at once and start again."""

    def __init__(self, folder: Path, port: int, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._port = port

    def url(self, database: str = "postgres") -> str:
        """The DATABASE_URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """The DATABASE_URL of a database that did not exist before."""
        name = f"test_{uuid.uuid4().hex}"
        engine = create_engine(self.url().replace("postgresql", "postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    def create(self) -> None:
        """Make its data folder."""
        self._run("initdb", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "start", "--wait", f"--options={options}", f"--log={self._folder / 'log'}")

    def stop(self) -> None:
        """Stop it at once, as if the power had failed."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        # It refuses to run as root.
        user = _other_user() if os.geteuid() == 0 else None
        command = [str(self._programs / program), f"--pgdata={self._folder / 'data'}", *arguments]
        done = subprocess.run(
            command, cwd="/", user=user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, check=False
        )
        if done.returncode:
            raise Unavailable(f"{program} failed: {done.stderr.decode().strip()}")


@contextmanager
def postgresql() -> Iterator[PostgreSql]:
    """A server of its own. Raises Unavailable."""
    if importlib.util.find_spec("psycopg") is None:
        raise Unavailable("psycopg is not installed (pip install 'psycopg[binary]')")
    programs = _programs()
    if programs is None:
        raise Unavailable("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="postgresql.", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, _other_user(), -1)
        server = PostgreSql(folder, Ports.free().amqp, programs)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path | None:
    """Where initdb is: on the PATH, or where Debian keeps what is not for users."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def _other_user() -> int:
    names = [entry.pw_name for entry in pwd.getpwall()]
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody").pw_uid
