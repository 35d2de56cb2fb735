"""Place an order and publish a message about it: two writes, between which it can die. place_order.py has the cure.

python reliability/transactional_outbox/place_order_naive.py
python reliability/transactional_outbox/place_order_naive.py --pause 60                    time to kill it in between
python reliability/transactional_outbox/place_order_naive.py --pause 60 --publish-first    the other way round
"""

import os
import time

import store
import topology

from common import console, messages
from common.config import Settings
from extras import database
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--customer", default="ada", metavar="NAME", help="whose order it is, ada by default")
    parser.add_argument("--pause", type=console.seconds, default=0.0, metavar="S", help="wait between the two writes")
    parser.add_argument("--publish-first", action="store_true", help="publish before the order is committed")
    arguments = parser.parse_args()
    body = store.body(arguments.customer, 10)
    settings = Settings.load()
    engine = database.open_engine(settings, store.TABLES)

    with Publisher("transactional_outbox/place_order_naive.py", settings, declare=topology.declare) as publisher:

        def publish(message_id: str) -> None:
            properties = messages.properties("application/json", message_id=message_id)
            publisher.publish(topology.EXCHANGE, "", body, properties).wait()
            console.say(f" [x] Published {message_id}")

        def pause() -> None:
            if arguments.pause:
                console.say(f" [*] Process {os.getpid()} pauses for {arguments.pause:g} s")
                time.sleep(arguments.pause)

        with database.transaction(engine) as connection:
            message_id = store.add_order(connection, arguments.customer, 10)
            if arguments.publish_first:
                publish(message_id)
                pause()
        console.say(f" [x] Placed {message_id}: 10 euros for {arguments.customer}")
        if not arguments.publish_first:
            pause()
            publish(message_id)


if __name__ == "__main__":
    console.run(main)
