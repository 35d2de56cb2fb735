"""The variables of the environment and of ``.env``, as text; ``config`` makes settings of them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from common.errors import ExitCode, Failure

_OURS = re.compile(r"RABBITMQ_\w+|AMQP_URL|DATABASE_URL|PLAYGROUND_PORT")
# What is the same value for python-dotenv and for Docker Compose, which reads the same file: Compose replaces $word and
# ${word} unless the value is in single quotes, and they differ in escapes and in what begins a comment.
_SAME = re.compile(
    r"""\s*(?:export[ \t]+)?\w+[ \t]*=[ \t]*(?![ \t])
    (?: (?: '(?:[^'\\\n]|\\(?!['\\]))*' | "[^"\\$\n]*" )  [ \t]*(?:\#.*)?
      | (?: (?![\s'"\#]) (?:(?![^\S ]\#)[^$\n])*? (?<!\s) )?  (?:[ ]\#.*|[ \t]*)
    )\n?""",
    re.VERBOSE,
)
_CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa1-\U0010ffff]")


class SettingsError(Failure):
    """A setting that cannot be used; the text names the variable."""

    exit_code = ExitCode.CONFIG


def variables(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    """Our variables of ``env_file`` (None: no file), and over them those of ``environ``. Raises SettingsError."""
    values = {} if env_file is None else _read(env_file)
    for name, value in environ.items():
        if _OURS.fullmatch(name):
            try:
                values[name] = as_utf8(value)
            except UnicodeError:
                raise SettingsError(f"{name} is not valid UTF-8") from None
    return values


def as_utf8(text: str) -> str:
    """A text of the environment or the command line as it is in UTF-8; Python may have read it as ASCII (``LC_ALL=C``).

    Raises UnicodeError if it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode()
    return text


def as_path(text: str) -> Path:
    """The path that a text of ``as_utf8`` names, whatever the locale."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))


def _read(file: Path) -> dict[str, str]:
    """Our variables of a file; {} if there is none. Raises SettingsError for what Compose would read differently."""
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n") if file.is_file() else ""
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise SettingsError(f"{file}, line {line}, has the control character {control[0]!a}; save it as UTF-8 text")
    values = {}
    for binding in parse_stream(io.StringIO(text)):
        name, raw = binding.key, binding.original
        begin = raw.string.lstrip()
        line = raw.line + raw.string[: len(raw.string) - len(begin)].count("\n")
        if binding.error or ":" in (name or ""):
            raise SettingsError(f"{file}, line {line}, cannot be read; write NAME=value")
        if name is None or binding.value is None or not _OURS.fullmatch(name):
            continue
        if not _SAME.fullmatch(raw.string):
            raise SettingsError(
                f"{file}, line {line}: Docker Compose would read another value for {name}; write it in single quotes, "
                r"without \' and \\, or set it in the environment"
            )
        values[name] = binding.value
    return values
