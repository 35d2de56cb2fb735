"""The sessions of a server: made, found by their name, and ended when nobody has looked at them for a while."""

from __future__ import annotations

import asyncio
import secrets
import time

from common.errors import Failure
from playground.lesson import Lesson
from playground.session import Busy, Session, Surroundings


class Sessions:
    """All of them. ``on_failure`` is told what the broker refused when a session ended."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._sessions: dict[str, Session] = {}
        self._opening = 0
        self._closing: set[asyncio.Task[Failure | None]] = set()

    async def open(self, lesson: Lesson) -> Session:
        """A new session. Raises Busy, or a ManagementFailure."""
        most = self.surroundings.limits.sessions
        if len(self._sessions) + self._opening >= most:
            # One that nobody looks at makes room.
            unwatched = [session for session in self._sessions.values() if not session.viewers]
            if not unwatched:
                raise Busy(f"{most} sessions are open, and no more are allowed; close another page of the playground")
            self._close(min(unwatched, key=lambda session: session.unwatched_since))
        self._opening += 1
        try:
            session = Session(secrets.token_urlsafe(18), lesson, self.surroundings)
            await session.open()
        finally:
            self._opening -= 1
        self._sessions[session.id] = session
        return session

    def find(self, ident: str) -> Session | None:
        """The session of this name, if it is still there."""
        return self._sessions.get(ident)

    def end(self, ident: str) -> None:
        """End one, if it is there and nobody looks at it."""
        session = self._sessions.get(ident)
        if session and not session.viewers:
            self._close(session)

    async def tidy(self) -> None:
        """End those that nobody has looked at for ``linger`` seconds; runs until it is cancelled."""
        linger = self.surroundings.limits.linger
        while True:
            await asyncio.sleep(min(1.0, linger / 4))
            for session in list(self._sessions.values()):
                if not session.viewers and time.monotonic() - session.unwatched_since > linger:
                    self._close(session)

    async def close(self) -> list[Failure]:
        """End them all; what the broker refused is returned."""
        for session in list(self._sessions.values()):
            self._close(session)
        told = await asyncio.gather(*self._closing)
        return [failure for failure in told if failure]

    def _close(self, session: Session) -> None:
        del self._sessions[session.id]
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
