"""A TCP proxy on loopback that breaks connections on command: the network's failures, without a network."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TypeVar

from common.config import Address

T = TypeVar("T")

CHUNK_BYTES = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s. Closing then sends RST and drops what is still unsent.


class Proxy:
    """Forwards every connection made to ``address`` to ``target``, until told otherwise.

    Its event loop has a thread of its own, so that it works on while a test blocks. Use it with ``with``:

        with Proxy(Address("localhost", 5672)) as proxy:
            proxy.cut()      # the connections break, new ones are welcome
            proxy.stall()    # nothing passes in either direction, the connections stay open
            proxy.resume()   # it passes again, nothing is lost
            proxy.refuse()   # new connections are refused, those there are stay
            proxy.accept()   # new connections are welcome again
            proxy.limit(99)  # new connections end after the target's first 99 bytes; None: no more of that
            proxy.answer(f)  # what a client sends goes to f; what f returns, if anything, ends the connection
    """

    def __init__(self, target: Address) -> None:
        self._target = target
        # Bound for as long as we live and never listening: nobody else gets the port while we refuse.
        self._holder = _socket(0)
        self.address = Address("127.0.0.1", self._holder.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._limit: int | None = None
        self._answer: Callable[[bytes], bytes | None] | None = None
        self._links: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}

    def __enter__(self) -> Proxy:
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        self._wait(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._holder.close()

    @property
    def connections(self) -> int:
        """How many connections are open through the proxy now."""
        return self._run(lambda: len(self._links))

    def cut(self, count: int | None = None) -> int:
        """Break ``count`` connections picked at random (all by default) with RST; returns how many there were."""

        def breaking() -> int:
            links = list(self._links.items())
            chosen = links if count is None else random.sample(links, min(count, len(links)))
            for near, far in chosen:
                del self._links[near]
                for writer in (near, far):
                    _reset(writer)
            return len(chosen)

        return self._run(breaking)

    def stall(self) -> None:
        """Let nothing pass, as if a cable were pulled: neither end notices by itself."""
        self._run(self._flowing.clear)

    def resume(self) -> None:
        """Let everything pass again, what was held back included."""
        self._run(self._flowing.set)

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED)."""

        def closing() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None

        self._run(closing)

    def accept(self) -> None:
        """Welcome new connections."""

        async def listening() -> None:
            if self._server is None:
                listener = _socket(self.address.port)
                self._server = await asyncio.start_server(self._serve, sock=listener)

        self._wait(listening())

    def limit(self, count: int | None) -> None:
        """End each new connection once it has passed on ``count`` bytes from the target; None: let it live."""
        self._limit = count

    def answer(self, answer: Callable[[bytes], bytes | None] | None) -> None:
        """Ask ``answer`` about each piece that a client of a new connection sends; None: no more of that.

        Where it returns bytes, these are the last that the client gets, and the target never sees that piece.
        """
        self._answer = answer

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            _reset(near)
            return
        self._links[near] = far
        limit, answer = self._limit, self._answer
        pumps = [
            asyncio.ensure_future(self._pump(reader, far) if answer is None else self._ask(answer, reader, far, near)),
            asyncio.ensure_future(self._pump(far_reader, near, limit)),
        ]
        both = limit is None and answer is None
        try:
            await asyncio.wait(pumps, return_when=asyncio.ALL_COMPLETED if both else asyncio.FIRST_COMPLETED)
        finally:
            self._links.pop(near, None)
            for pump in pumps:
                pump.cancel()
            for writer in (near, far):
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None = None) -> None:
        left = limit
        try:
            while left != 0 and (chunk := await reader.read(CHUNK_BYTES if left is None else left)):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
                if left is not None:
                    left -= len(chunk)
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            # One side broke off, of itself or cut by us: the other side must see it break as well.
            _reset(writer)

    async def _ask(
        self,
        answer: Callable[[bytes], bytes | None],
        reader: asyncio.StreamReader,
        far: asyncio.StreamWriter,
        near: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                if (last := answer(chunk)) is None:
                    far.write(chunk)
                    await far.drain()
                    continue
                near.write(last)
                near.write_eof()
                while await reader.read(CHUNK_BYTES):
                    pass  # closing with something unread would send RST, and the client might lose the answer

    async def _finish(self) -> None:
        self._flowing.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, action: Callable[[], T]) -> T:
        async def running() -> T:
            return action()

        return self._wait(running())

    def _wait(self, coroutine: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


def _socket(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The holder and the listener share the port.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _reset(writer: asyncio.StreamWriter) -> None:
    if (connection := writer.get_extra_info("socket")) is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
