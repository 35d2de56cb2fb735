"""Packages that only one example needs: they are in a requirements.txt of its own folder, and may be missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import console
from common.errors import ExitCode, Failure

REQUIREMENTS = "requirements.txt"


class NotInstalled(Failure):
    """A package of an example's own is missing; the text says how to install it."""

    exit_code = ExitCode.NOT_INSTALLED


@contextmanager
def packages_for(script: str) -> Iterator[None]:
    """Import in this block what is in the ``requirements.txt`` beside ``script``, which is your ``__file__``.

        with packages_for(__file__):
            from rstream import Producer

    If it is not installed, the program ends here: one line on standard error that says how to install it, and the
    exit code NOT_INSTALLED. The tour skips the example then. A module that is missing for another reason is raised.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        requirements = Path(script).resolve().with_name(REQUIREMENTS)
        if not error.name or not requirements.is_file():
            raise
        package = error.name.partition(".")[0]
        console.fail(NotInstalled(f"the package {package!r} is not installed: pip install -r {_shown(requirements)}"))


def _shown(path: Path) -> str:
    """The path as the reader would type it here."""
    here = Path.cwd()
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    return os.fspath(path)
