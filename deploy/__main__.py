"""Put the course on a Kubernetes cluster: RabbitMQ, the examples' consumers, and templates for their producers.

up      deploys to the cluster that kubectl points at, tries it, and says how to go on; running it again changes
        what is not as it should be, and nothing else
status  what is deployed, and how it is
down    takes it away again
"""

from __future__ import annotations

from common import console
from deploy import driver
from deploy.driver import Wishes
from deploy.manifests import OVERLAYS


def main() -> None:
    parser = console.parser(__doc__)
    parser.prog = "python -m deploy"
    parser.add_argument("command", choices=["up", "status", "down"])
    parser.add_argument("--yes", action="store_true", help="up, down: do not ask; down deletes the data, too")
    parser.add_argument(
        "--overlay", choices=OVERLAYS, help="up: how large; by default production on three machines or more"
    )
    parser.add_argument("--image", metavar="NAME:TAG", help="up: the image's name in a registry, to which it is pushed")
    parser.add_argument("--storage-class", metavar="NAME", help="up: the volumes' class, instead of the default one")
    parser.add_argument(
        "--timeout",
        type=console.seconds,
        default=driver.READY_LIMIT,
        metavar="S",
        help="up: seconds in which everything must be ready, 900 by default",
    )
    arguments = parser.parse_args()
    match arguments.command:
        case "up":
            driver.up(
                Wishes(arguments.overlay, arguments.image, arguments.storage_class, arguments.yes, arguments.timeout)
            )
        case "status":
            driver.status()
        case "down":
            driver.down(yes=arguments.yes)


if __name__ == "__main__":
    console.run(main)
