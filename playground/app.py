"""The web application: the page, the list of examples, and a WebSocket for each browser that looks at a session."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from common.errors import Failure, RobustPikaError, described
from playground.guard import Guard
from playground.lesson import Lesson, lesson, sources
from playground.session import Session, Viewer
from playground.sessions import Sessions
from tour.examples import Example, examples

PAGE = Path(__file__).resolve().parent / "page"
MOST_REQUEST = 256 * 1024
"""Bytes that a browser may send at once."""
_REQUESTS_A_SECOND = 20
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Course:
    """The examples as the page shows them, read anew when a README has changed or come."""

    def __init__(self, root: Path, find: Callable[[Path], list[Example]] = examples) -> None:
        self.root = root
        self._find = find
        self._read: tuple[dict[str, int], list[Lesson], dict[str, Path]] | None = None

    def lessons(self) -> list[Lesson]:
        """In reading order. Raises ScenarioError."""
        return self._load()[0]

    def lesson(self, name: str) -> Lesson | None:
        """The example of this name."""
        return next((item for item in self.lessons() if item.name == name), None)

    def files(self) -> dict[str, Path]:
        """The files that can be looked at."""
        return self._load()[1]

    def _load(self) -> tuple[list[Lesson], dict[str, Path]]:
        readmes = [*self.root.glob("*/README.md"), *self.root.glob("*/*/README.md"), self.root / "README.md"]
        state = {str(path): path.stat().st_mtime_ns for path in readmes if path.is_file()}
        if self._read is None or self._read[0] != state:
            found = self._find(self.root)
            files = sources(self.root, found)
            self._read = state, [lesson(item, self.root, found, files) for item in found], files
        return self._read[1], self._read[2]


def application(course: Course, sessions: Sessions, hosts: frozenset[str]) -> Starlette:
    """The application; ``hosts`` are the names and ports by which it may be addressed."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tidying = asyncio.create_task(sessions.tidy())
        yield
        tidying.cancel()

    endpoints = _Endpoints(course, sessions)
    return Starlette(
        routes=[
            Route("/", _file(PAGE / "index.html")),
            # Each file has a route of its own: nothing that a browser sends becomes a path.
            *(Route(f"/page/{path.name}", _file(path)) for path in sorted(PAGE.iterdir()) if path.suffix in _TYPES),
            Route("/api/examples", endpoints.list),
            Route("/api/lesson", endpoints.lesson),
            Route("/api/sessions", endpoints.open, methods=["POST"]),
            Route("/source", endpoints.source),
            WebSocketRoute("/ws", endpoints.look),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        lifespan=lifespan,
    )


def _file(path: Path) -> Callable[[Request], Any]:
    async def respond(_request: Request) -> Response:
        return FileResponse(path, media_type=_TYPES[path.suffix])

    return respond


def _error(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status)


class _Endpoints:
    def __init__(self, course: Course, sessions: Sessions) -> None:
        self.course = course
        self.sessions = sessions

    async def list(self, _request: Request) -> Response:
        try:
            lessons = await asyncio.to_thread(self.course.lessons)
        except Failure as failure:
            return _error(str(failure), 500)
        return JSONResponse([item.listed() for item in lessons])

    async def lesson(self, request: Request) -> Response:
        found = await asyncio.to_thread(self.course.lesson, request.query_params.get("example", ""))
        if found is None:
            return _error("there is no such example", 404)
        return JSONResponse({**found.listed(), "html": found.html, "outline": found.outline()})

    async def source(self, request: Request) -> Response:
        path = self.course.files().get(request.query_params.get("file", ""))
        if path is None:
            return PlainTextResponse("there is no such file\n", 404)
        return PlainTextResponse(await asyncio.to_thread(path.read_text, "utf-8"))

    async def open(self, request: Request) -> Response:
        """A new session for ``example``; the one that the page has ``left`` ends, if nobody else looks at it."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > 4096:
                return _error("the request is too large", 413)
        try:
            asked = json.loads(body)
            name, left = str(asked["example"]), str(asked.get("left", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _error("the request cannot be read", 400)
        found = await asyncio.to_thread(self.course.lesson, name)
        if found is None:
            return _error("there is no such example", 404)
        self.sessions.end(left)
        try:
            session = await self.sessions.open(found)
        except Failure as failure:
            return _error(str(failure), 503)
        return JSONResponse({"session": session.id})

    async def look(self, socket: WebSocket) -> None:
        session = self.sessions.find(socket.query_params.get("session", ""))
        await socket.accept()
        if session is None or session.closed:
            await socket.close(4404, "this session has ended")
            return
        viewer = Viewer()
        try:
            await session.join(viewer)
        except Failure as failure:
            await socket.close(4429, str(failure)[:120])
            return
        sending = asyncio.create_task(_send(socket, viewer))
        try:
            await _receive(socket, session, viewer)
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            # Not to be interrupted: the firehose is turned off when nobody looks.
            await asyncio.shield(session.leave(viewer))


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while (message := await viewer.queue.get()) is not None:
            await socket.send_text(message)
        # 4408: the page may connect again; 4404: the session is over.
        await socket.close(*((4408, "it did not keep up") if viewer.late else (4404, "this session has ended")))


async def _receive(socket: WebSocket, session: Session, viewer: Viewer) -> None:
    recent: list[float] = []
    doing: set[asyncio.Task[None]] = set()
    while True:
        text = await socket.receive_text()
        now = time.monotonic()
        recent = [moment for moment in recent if moment > now - 1.0]
        recent.append(now)
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            viewer.send(json.dumps({"type": "notice", "text": "the request cannot be read"}))
        elif len(recent) > _REQUESTS_A_SECOND:
            viewer.send(json.dumps({"type": "notice", "text": "too many requests at once; wait a second"}))
        elif request.get("do") == "ping":
            viewer.send(json.dumps({"type": "pong", "n": str(request.get("n"))[:40]}))
        else:
            task = asyncio.create_task(_do(session, viewer, request))
            doing.add(task)
            task.add_done_callback(doing.discard)


async def _do(session: Session, viewer: Viewer, request: dict[str, Any]) -> None:
    answer = {"type": "done", "do": str(request.get("do"))[:40]}
    try:
        await session.do(request)
    except (Failure, RobustPikaError) as error:
        viewer.send(json.dumps({**answer, "type": "notice", "text": described(error)[0]}))
    else:
        viewer.send(json.dumps(answer))
