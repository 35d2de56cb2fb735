"""Get a RabbitMQ for the examples, and let it go again.

up       a broker that answers at the configured address is used as it is; else Docker Compose starts one;
         else a private node of this machine's rabbitmq-server; else that package is installed first, if we may
down     stop what `up` started; its data stays
restart  stop and start what `up` started
kill     end what `up` started at once, as a power cut does; its data stays, and `up` starts it again
status   where it runs, its version, its addresses, its plugins
logs     the log of what `up` started
cluster  up, down or status of three private nodes on ports 5681 to 5683, beside the broker of `up`
queues   what waits in which queue of the configured virtual host
reset    delete the queues and exchanges of one lesson from the configured virtual host: reset work_queue
ctl      run rabbitmqctl in what `up` started: ctl list_connections; its options after a --
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from broker import lessons, queues
from broker.launcher import Launcher, directory
from common import console
from common.config import Settings

CLUSTER_ACTIONS = (["up"], ["down"], ["status"])


def check(parser: argparse.ArgumentParser, command: str, action: list[str]) -> None:
    """Leave with one line if ``action`` does not fit the command."""
    match command:
        case "cluster":
            if action not in CLUSTER_ACTIONS:
                parser.error("cluster needs one of up, down and status")
        case "reset":
            if len(action) != 1:
                parser.error("reset needs the name of one lesson, such as work_queue or reliability/dead_letters")
        case "ctl":
            if not action:
                parser.error("ctl needs a command of rabbitmqctl, such as list_connections")
        case _:
            if action:
                parser.error(f"{command} takes no {action[0]!r}")


def say_all(lines: Iterable[str]) -> None:
    for line in lines:
        console.say(line)


def main() -> None:
    parser = console.parser(__doc__)
    parser.prog = "python -m broker"
    parser.add_argument(
        "command", choices=["up", "down", "restart", "kill", "status", "logs", "queues", "reset", "cluster", "ctl"]
    )
    parser.add_argument("action", nargs="*", help="cluster: up, down or status; reset: the lesson; ctl: what to run")
    parser.add_argument("--way", choices=["compose", "node"], help="up: start it in this way and no other")
    parser.add_argument("--no-install", action="store_true", help="up: install no package")
    parser.add_argument("-f", "--follow", action="store_true", help="logs: go on until Ctrl-C")
    parser.add_argument(
        "--directory",
        type=Path,
        default=directory(),
        help="where the private node lives (BROKER_DIRECTORY, or .broker)",
    )
    arguments = parser.parse_args()
    check(parser, arguments.command, arguments.action)
    launcher = Launcher(Settings.load(), Path(os.path.realpath(arguments.directory)))
    match arguments.command:
        case "up":
            launcher.up(arguments.way, may_install=not arguments.no_install)
        case "down":
            launcher.down()
        case "restart":
            launcher.restart()
        case "kill":
            launcher.kill()
        case "status":
            launcher.status()
        case "logs":
            launcher.logs(arguments.follow)
        case "cluster":
            launcher.cluster(arguments.action[0])
        case "ctl":
            launcher.ctl(arguments.action)
        case "queues":
            say_all(queues.table(launcher.settings))
        case "reset":
            say_all(lessons.reset(launcher.settings, arguments.action[0]))


if __name__ == "__main__":
    console.run(main)
