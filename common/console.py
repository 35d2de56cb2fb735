"""A script's way in and out: arguments, lines of output, exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from pika.exceptions import AMQPError

from common import messages
from common.config import Settings
from common.environment import as_path, as_utf8
from common.errors import BadMessage, ExitCode, Failure, RobustPikaError, came_of_an_interrupt, described
from robust_pika.explaining import explain


class OutputFailure(Failure):
    """What we print does not reach anybody: the disk is full, for example."""

    exit_code = ExitCode.OUTPUT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would print the usage as well; one line is easier to read, and --help is one step away.
        self.exit(ExitCode.USAGE, f"error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._as_utf8(word) for word in words], namespace)

    def _as_utf8(self, word: str) -> str:
        try:
            return as_utf8(word)
        except UnicodeError:
            self.exit(ExitCode.DATA, f"error: the argument {word!a} is not valid UTF-8; send text in UTF-8\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of command-line arguments that shows the script's docstring and tells errors in one line."""
    made = _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.register("type", Path, as_path)
    return made


def whole(low: int, high: int) -> Callable[[str], int]:
    """A ``type`` for an argument that is a whole number from ``low`` to ``high``."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        return number

    return convert


def seconds(text: str) -> float:
    """A ``type`` for an argument that is a number of seconds, up to a day."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 86400:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 to 86400, not {text!r}")
    return number


def say(line: str) -> None:
    """Print one line, at once even if the output is a pipe: Python would keep it in a buffer.

    Raises SystemExit if it cannot be printed. That is no Exception, so a consumer's handler that says something
    does not take it for the message's fault: the message is given back.
    """
    try:
        _write(sys.stdout, printable(line))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`).
        _drop_output()
        sys.exit(0)
    except OSError as error:
        _drop_output()
        fail(OutputFailure(f"the output cannot be written: {error.strerror}"))


def warn(line: str) -> None:
    """Print one line on standard error, for what the reader should know but did not ask for."""
    # If even that cannot be written, there is nobody left to tell.
    with suppress(OSError):
        _write(sys.stderr, f" [!] {printable(line)}")


def _write(stream: TextIO | None, line: str) -> None:
    # The line and its end in one go: print() writes them apart, and another thread's line may come in between.
    if stream is not None:  # it was not closed when the script began
        stream.write(f"{line}\n")
        stream.flush()


def printable(text: str) -> str:
    """The text without control characters: a message must not be able to clear or recolour a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def body_text(words: Sequence[str], default: str = "") -> str:
    """The words of a command line as one text; a single ``-`` reads standard input instead.

    Raises BadMessage if the text is empty, not UTF-8, or larger than ``messages.MAX_BODY_BYTES``.
    """
    if list(words) == ["-"]:
        if sys.stdin is None:
            raise BadMessage("standard input is closed; give it a text")
        # A line feed at the end does not count, and one byte more is enough to know that it is too much.
        body = sys.stdin.buffer.read(messages.MAX_BODY_BYTES + 2)
        if len(body) > messages.MAX_BODY_BYTES + 1:
            raise BadMessage(
                f"standard input has more than the {messages.MAX_BODY_BYTES:,} bytes that RabbitMQ accepts; "
                "store large data elsewhere and send where it is"
            )
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise BadMessage("standard input is not UTF-8; send text in UTF-8") from None
        text = text.removesuffix("\n")
    else:
        text = " ".join(words) if words else default
    messages.encode_text(text)
    return text


def fail(failure: Failure | RobustPikaError) -> NoReturn:
    """Say what is wrong in one line on standard error, and leave with the failure's exit code."""
    text, code = described(failure)
    with suppress(OSError):
        _write(sys.stderr, f"error: {printable(text)}")
    sys.exit(code)


class _Lines(logging.Handler):
    """Shows the library's log records as lines of the script, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def show_log() -> None:
    """Show what ``robust_pika`` logs, from WARNING on, as lines of ``warn``."""
    log = logging.getLogger("robust_pika")
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines(logging.WARNING))
        log.propagate = False


def run(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and leave with its exit code.

    0 when it is done or was stopped by Ctrl-C or SIGTERM; a Failure's own code, with one line on standard error.
    """
    # SIGTERM is how Docker, Kubernetes and systemd stop a program: treat it as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no é shows \xe9; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_log()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
    except BrokenPipeError:
        _drop_output()
        sys.exit(0)
    except (Failure, RobustPikaError) as failure:
        fail(failure)
    except AMQPError as error:
        # Ctrl-C in the middle of a message: what RabbitMQ says to the half of it is no news to the reader.
        if not came_of_an_interrupt(error):
            fail(explain(error, Settings.load()))
    except Exception as error:
        if not came_of_an_interrupt(error):
            raise
    sys.exit(0)


def _drop_output() -> None:
    # What could not be written is still in Python's buffer, and would make it complain once more while it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
