"""Cook what is ordered, until Ctrl-C; refuse what cannot be cooked. Its pair is order.py; either may start first.

python reliability/dead_letters/cook.py
python reliability/dead_letters/cook.py --also souffle unicorn    as if somebody had mended it
"""

import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--also", nargs="+", metavar="DISH", default=(), help="dishes that this cook has learnt")
    learnt = parser.parse_args().also

    def cook(message: Message) -> Outcome:
        dish = message.text()
        if dish == "unicorn" and dish not in learnt:
            console.say(f" [ ] Rejected {dish!r}: not on the menu")
            return Outcome.REJECT  # basic.reject(requeue=False)
        if dish == "souffle" and dish not in learnt:
            console.say(f" [ ] Gave back {dish!r}: it has collapsed")
            # Counts, on every version of RabbitMQ. (basic.nack does not since 4.3: it would come back for ever.)
            return Outcome.REQUEUE  # basic.reject(requeue=True)
        console.say(f" [x] Cooked {dish!r}")
        return Outcome.ACK

    consume(
        "dead_letters/cook.py",
        Settings.load(),
        topology.declare,
        cook,
        prefetch=1,
        on_ready=lambda _queue: console.say(" [*] Waiting for orders. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
