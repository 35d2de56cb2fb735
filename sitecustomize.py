"""Python runs this file when it starts, if it finds it: in this repository's virtual environment it does.

An example imports what stands beside it, and our packages. Where this Python would not find them, or would find another
project's, this says so in one line; Python itself would say that there is no module of a name which is plainly there.
"""

import os
import sys
from importlib.machinery import PathFinder

ROOT = os.path.dirname(os.path.realpath(__file__))
CONFIG = 78


def mistake(script: str) -> str | None:
    """What keeps an example from its modules, in one line; None if nothing does, or if it is no example."""
    folder = os.path.dirname(os.path.realpath(script))
    is_lesson = script.endswith(".py") and os.path.exists(os.path.join(folder, "README.md"))
    if not is_lesson or not folder.startswith(ROOT + os.sep):
        return None
    if getattr(sys.flags, "safe_path", False) and os.path.exists(os.path.join(folder, "topology.py")):
        return "Python does not look for modules beside the script (PYTHONSAFEPATH, -P or -I); start it without"
    for package in ("common", "robust_pika", "extras"):
        found = PathFinder.find_spec(package)
        origin = os.path.realpath(found.origin) if found and found.origin else ROOT + os.sep
        if not origin.startswith(ROOT + os.sep):
            return f"the package {package!r} would be another project's, {origin}; take that out of PYTHONPATH"
    return None


def main() -> None:
    if line := mistake(sys.argv[0] if sys.argv else ""):
        os.write(2, f"error: {line}\n".encode(errors="backslashreplace"))
        # Python is not up yet: SystemExit would be one more traceback.
        os._exit(CONFIG)


if __name__ == "sitecustomize":
    main()
