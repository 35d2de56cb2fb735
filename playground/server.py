"""Runs the web application on loopback until it is told to stop, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from common import console
from common.errors import ExitCode, Failure
from playground.app import MOST_REQUEST, Course, application
from playground.session import Surroundings
from playground.sessions import Sessions
from playground.watcher import Watcher

ADDRESS = "127.0.0.1"
_GRACE = 3


class PortTaken(Failure):
    """Another program has the port."""

    exit_code = ExitCode.UNAVAILABLE


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again when it is done, in the middle of our tidying up.
        yield


def listen(port: int) -> socket.socket:
    """A socket that listens on loopback; port 0 is any free one. Raises PortTaken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(
                f"port {port} cannot be had ({error.strerror}); stop what has it (another playground?), "
                "or take another: --port 8081"
            ) from None
        raise
    return listener


def serve(listener: socket.socket, surroundings: Surroundings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. ``ready`` is called with the address of the page.

    Returns when every process and virtual host of the sessions is gone.
    """
    watcher = Watcher()
    with tempfile.TemporaryDirectory(prefix="playground.", ignore_cleanup_errors=True) as folder:
        own = Surroundings(
            surroundings.settings, surroundings.root, Path(folder), surroundings.limits, surroundings.own_broker
        )
        failures = asyncio.run(_serve(listener, own, ready))
    for failure in failures:
        console.warn(f"not tidied up: {failure}")
    if not failures:
        watcher.dismiss()


async def _serve(listener: socket.socket, surroundings: Surroundings, ready: Callable[[str], None]) -> list[Failure]:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(48))
    port = listener.getsockname()[1]
    sessions = Sessions(surroundings)
    hosts = frozenset(f"{name}:{port}" for name in (ADDRESS, "localhost"))
    course = Course(surroundings.root)
    server = _Server(
        uvicorn.Config(
            application(course, sessions, hosts),
            log_level="error",
            lifespan="on",
            ws="websockets-sansio",
            ws_max_size=MOST_REQUEST,
            timeout_graceful_shutdown=_GRACE,
            server_header=False,
        )
    )

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A second one changes nothing: tidying up takes a moment, and must not be broken off.
        loop.add_signal_handler(number, stop)
    ready(f"http://{ADDRESS}:{port}")
    try:
        await server.serve(sockets=[listener])
    finally:
        failures = await sessions.close()
    return failures
