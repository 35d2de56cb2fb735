"""A path that RabbitMQ can use for a folder of any name.

RabbitMQ takes the path of its configuration for a pattern: in a folder named ``[1]`` or ``{a,b}`` it finds none, and
listens at all addresses. With a quote or a letter beyond ASCII in the path of its data, it does not start.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def plain(folder: Path) -> Path:
    """``folder`` if its path is plain, else a link to it in a folder that nobody else can write. Raises OSError."""
    if _PLAIN.fullmatch(str(folder)):
        return folder
    link = _link(folder)
    with suppress(FileExistsError):
        link.parent.mkdir(mode=0o700)
    found = link.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(1, "somebody else may write in it", str(link.parent))
    with suppress(FileExistsError):
        link.symlink_to(folder)
    return link


def remove_link(folder: Path) -> None:
    """Remove the link of ``plain``, if there is one."""
    link = _link(folder)
    with suppress(OSError):
        link.unlink()
        link.parent.rmdir()


def _link(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(f"/tmp/rabbitmq-by-example-{os.getuid()}") / name
