"""Cook what is ordered, until Ctrl-C; refuse what cannot be cooked. Its pair is order.py; start either one first.

python reliability/dead_letters/cook.py
python reliability/dead_letters/cook.py --plain                   takes the orders of a queue without dead letters
python reliability/dead_letters/cook.py --also souffle unicorn    can cook these, too
"""

import time

import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume

SECONDS = 0.2
"""How long a dish takes."""


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--plain", action="store_true", help="take the orders of the queue without dead letters")
    parser.add_argument("--also", nargs="+", metavar="DISH", default=(), help="dishes that this cook has learnt")
    arguments = parser.parse_args()
    learnt = arguments.also

    def cook(message: Message) -> Outcome:
        dish = message.text()
        time.sleep(SECONDS)
        if dish == "unicorn" and dish not in learnt:
            console.say(f" [ ] Rejected {dish!r}: not on the menu")
            return Outcome.REJECT  # basic_reject(requeue=False)
        if dish == "souffle" and dish not in learnt:
            console.say(f" [ ] Gave back {dish!r}: it has collapsed")
            return Outcome.REQUEUE  # basic_reject(requeue=True)
        console.say(f" [x] Cooked {dish!r}")
        return Outcome.ACK

    consume(
        "dead_letters/cook.py",
        Settings.load(),
        topology.declare_plain if arguments.plain else topology.declare,
        cook,
        prefetch=1,
        on_ready=lambda _queue: console.say(" [*] Waiting for orders. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
