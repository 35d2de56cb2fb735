"""TLS in front of a broker that has none: certificates of an authority made for the test, and a proxy that ends TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

from common.config import Address

CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; its own is ``ca``. Made with the ``openssl`` command; without it, the test is skipped."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command is missing: it makes the certificates of this test")
        self._folder = folder
        folder.mkdir()
        own = self._request("ca", "/CN=Authority of a test")
        self.ca = folder / "ca.pem"
        _openssl(
            *("x509", "-req", "-in", str(own), "-signkey", str(folder / "ca.key"), "-out", str(self.ca)),
            *("-days", "2", "-extfile", str(self._extensions("ca", "basicConstraints=critical,CA:true"))),
        )

    def issue(self, name: str, alternatives: str, days: int = 2) -> Pair:
        """A certificate for ``alternatives``, such as "DNS:localhost,IP:127.0.0.1"; with negative ``days``, expired."""
        request = self._request(name, f"/CN={name}")
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._folder / "ca.key")),
            *("-CAcreateserial", "-out", str(pair.cert), "-days", str(days)),
            *("-extfile", str(self._extensions(name, f"subjectAltName={alternatives}"))),
        )
        return pair

    def _request(self, name: str, subject: str) -> Path:
        request = self._folder / f"{name}.csr"
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject),
            *("-keyout", str(self._folder / f"{name}.key"), "-out", str(request)),
        )
        return request

    def _extensions(self, name: str, line: str) -> Path:
        path = self._folder / f"{name}.ext"
        path.write_text(f"{line}\n", encoding="utf-8")
        return path


class TlsProxy:
    """Ends TLS on a port of its own and passes what is inside to ``target``; use it with ``with``."""

    def __init__(
        self, target: Address, own: Pair, *, client_ca: Path | None = None, version: ssl.TLSVersion | None = None
    ) -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        self._context.load_cert_chain(own.cert, own.key)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
        if version is not None:
            self._context.minimum_version = self._context.maximum_version = version
        self._loop = asyncio.new_event_loop()
        # A client that we turn away is what some tests are about: asyncio need not report it.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls proxy", daemon=True)
        self.port = 0

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        far_reader, far = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            await asyncio.gather(_pump(reader, far), _pump(far_reader, near))
        finally:
            for writer in (near, far):
                writer.transport.abort()

    async def _finish(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    writer.close()


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
