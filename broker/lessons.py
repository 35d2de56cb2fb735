"""Deleting what a lesson has left in the broker, so that its reader can start over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from common.config import Settings
from common.errors import ExitCode, Failure
from extras.management import Management, NotFound

ROOT = Path(__file__).resolve().parent.parent


class UnknownLesson(Failure):
    """No folder of the repository has this lesson."""

    exit_code = ExitCode.USAGE


def prefix(lesson: str, root: Path = ROOT) -> str:
    """How the names of a lesson's queues and exchanges begin: "dead_letters." for "reliability/dead_letters".

    ``lesson`` is a folder below ``root``; a slash at its end does no harm. Raises UnknownLesson.
    """
    folder = (root / lesson).resolve()
    # Our packages have scripts and a README, too, but their scripts belong to a package.
    is_lesson = (folder / "README.md").is_file() and not (folder / "__init__.py").exists() and any(folder.glob("*.py"))
    if not is_lesson or root not in folder.parents:
        raise UnknownLesson(
            f"there is no lesson {lesson!r}; name its folder, such as work_queue or reliability/dead_letters"
        )
    return f"{folder.name}."


def reset(settings: Settings, lesson: str) -> Iterator[str]:
    """Delete the lesson's queues, with their messages, and its exchanges; yields a line for each when it is gone.

    Raises a Failure: there is no such lesson, or the management API cannot be reached or refuses.
    """
    begin = prefix(lesson)
    with Management(settings) as management:
        queues = sorted(queue.name for queue in management.queues() if queue.name.startswith(begin))
        exchanges = sorted(exchange.name for exchange in management.exchanges() if exchange.name.startswith(begin))
        if not queues and not exchanges:
            where = f"virtual host {settings.vhost!r}"
            yield f"nothing to delete: no queue or exchange in {where} has a name that begins with {begin!r}"
        for kind, names, delete in (
            ("queue", queues, management.delete_queue),
            ("exchange", exchanges, management.delete_exchange),
        ):
            for name in names:
                # An auto-delete one goes by itself when its last consumer or binding goes.
                with suppress(NotFound):
                    delete(name)
                yield f"deleted {kind} {name}"
