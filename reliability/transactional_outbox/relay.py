"""Send what is in the outbox to RabbitMQ, until Ctrl-C. It may be killed at any moment. Its pair is place_order.py.

python reliability/transactional_outbox/relay.py
python reliability/transactional_outbox/relay.py --pause 60    time to kill it when RabbitMQ has the messages already
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import store
import topology
from sqlalchemy import Row

from common import console, messages
from common.config import Settings
from extras import database
from robust_pika import DeliveryError, Publisher

BATCH = 100
"""Messages that are sent, and taken out of the outbox, together."""


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--every", type=console.seconds, default=0.2, metavar="S", help="how often to look, 0.2 s")
    parser.add_argument("--pause", type=console.seconds, default=0.0, metavar="S", help="wait before taking them out")
    arguments = parser.parse_args()
    settings = Settings.load()
    engine = database.open_engine(settings, store.TABLES)

    def send(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
        """Publish them; return those that RabbitMQ has confirmed."""
        sent = []
        for row in rows:
            properties = messages.properties("application/json", message_id=row.message_id, type="order.placed")
            sent.append((row, publisher.publish(topology.EXCHANGE, "", row.body.encode(), properties)))
        try:
            publisher.flush()
        except DeliveryError as failure:
            console.warn(f"{failure}; it stays in the outbox")
            # A full queue is not empty again at once.
            time.sleep(1)
        confirmed = [row for row, confirmation in sent if confirmation.done and confirmation.error is None]
        for row in confirmed:
            console.say(f" [x] Sent {row.message_id}, placed {time.time() - row.placed_at:.1f} s ago")
        # If the relay dies from here on, they are sent again.
        time.sleep(arguments.pause if confirmed else 0)
        return confirmed

    def relay() -> int:
        """Send a batch; return how many messages that were."""
        with database.transaction(engine) as connection:
            rows = store.claim(connection, BATCH)
            if database.has_row_locks(engine):
                confirmed = send(rows)
                store.remove(connection, confirmed)
                return len(confirmed)
        # SQLite locks the whole database: no order could be placed while the relay waits for RabbitMQ.
        confirmed = send(rows)
        with database.transaction(engine) as connection:
            store.remove(connection, confirmed)
        return len(confirmed)

    with Publisher("transactional_outbox/relay.py", settings, declare=topology.declare) as publisher:
        console.say(f" [*] Waiting for messages in the outbox (process {os.getpid()}). To exit press CTRL+C")
        while True:
            if not database.patiently(relay):
                time.sleep(arguments.every)


if __name__ == "__main__":
    console.run(main)
