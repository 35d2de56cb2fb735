"""The failures that a reader is meant to understand: one line of text and an exit code each."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every script; the numbers from 64 on are those of BSD's ``sysexits.h``."""

    USAGE = 2
    DATA = 65
    NO_VHOST = 66
    UNROUTABLE = 67
    NO_HOST = 68
    UNAVAILABLE = 69
    NOT_INSTALLED = 72
    DECLARED_OTHERWISE = 73
    OUTPUT = 74
    NOT_CONFIRMED = 75
    PROTOCOL = 76
    ACCESS = 77
    CONFIG = 78
    UNSUPPORTED = 79


def came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether ``error`` is what a library had to say about Ctrl-C, which came in the middle of its work."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Failure(Exception):
    """Something a reader can mend: ``str()`` is one line that names it; ``exit_code`` is the script's."""

    exit_code: ExitCode = ExitCode.UNAVAILABLE


class CannotWork(Failure):
    """What a program works with is gone, such as its database. It is no message's fault: a consumer whose handler
    raises this gives the message back, ends, and raises it."""


class BadMessage(Failure):
    """A body that is empty, too large, or not what its content type says."""

    exit_code = ExitCode.DATA


class Unsupported(Failure):
    """The broker is too old (or lacks a plugin) for what the example shows."""

    exit_code = ExitCode.UNSUPPORTED
