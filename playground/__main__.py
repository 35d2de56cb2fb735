"""Serve the playground: one page on which the real examples run, and their real messages can be watched.

It listens on this machine only (127.0.0.1). Each visitor has a virtual host of its own, which is deleted afterwards.
Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from broker.launcher import Launcher, directory
from common import console
from common.config import Settings
from playground.leftovers import sweep
from playground.server import listen, serve
from playground.session import Limits, Surroundings
from tour.player import OWN_BROKER, ROOT


def open_browser(url: str) -> None:
    """Open the page in the machine's browser, in a process that has no terminal and that nothing waits for.

    On a machine without a desktop it may be one that runs in a terminal: it would take ours, and come to an end first.
    """
    subprocess.Popen(
        [sys.executable, "-m", "webbrowser", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    limits = Limits()
    parser = console.parser(__doc__)
    parser.prog = "python -m playground"
    parser.add_argument("--port", type=console.whole(0, 65535), default=8080, help="8080 by default; 0: any free one")
    parser.add_argument(
        "--in-container",
        action="store_true",
        help="listen on all addresses of a container, whose port is published on this machine only",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    parser.add_argument(
        "--sessions", type=console.whole(1, 100), default=limits.sessions, metavar="N", help="visitors at once"
    )
    parser.add_argument(
        "--linger",
        type=console.seconds,
        default=limits.linger,
        metavar="S",
        help="seconds that a session is kept when its page is closed, 60 by default",
    )
    parser.add_argument(
        "--pause",
        type=console.seconds,
        default=limits.pause,
        metavar="S",
        help=f"seconds between the steps of “Play all”, {limits.pause:g} by default",
    )
    parser.add_argument("--root", type=Path, default=ROOT, metavar="FOLDER", help="where the examples are")
    parser.add_argument(
        "--own-broker",
        action=argparse.BooleanOptionalAction,
        help=f"let readers restart RabbitMQ, or not ({OWN_BROKER}=1, 0); by default, if `make broker` has started it",
    )
    arguments = parser.parse_args()
    settings = Settings.load()
    own_broker = arguments.own_broker
    if own_broker is None:
        told = os.environ.get(OWN_BROKER, "")
        own_broker = told != "0" if told else Launcher(settings, directory()).started_here()
    # Whoever asks, it answers only what is addressed to localhost.
    listener = listen(arguments.port, "0.0.0.0") if arguments.in_container else listen(arguments.port)
    for name in sweep(settings):
        console.say(f" [!] Removed {name}, which a playground that was killed had left")
    limits = replace(limits, sessions=arguments.sessions, linger=max(0.5, arguments.linger), pause=arguments.pause)

    def ready(url: str) -> None:
        console.say(f" [*] The playground is at {url} . To exit press CTRL+C")
        if not arguments.no_browser:
            open_browser(url)

    serve(listener, Surroundings(settings, arguments.root.resolve(), Path(), limits, own_broker), ready)


if __name__ == "__main__":
    console.run(main)
