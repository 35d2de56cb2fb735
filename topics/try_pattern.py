"""Ask RabbitMQ which of these keys match a pattern. It needs no other program, and disturbs none.

python topics/try_pattern.py 'north.*' north north.till north.till.error
"""

import keys
from pika.exceptions import UnroutableError

from common import console
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("pattern", type=keys.key, help="* is one word, # any number of words")
    parser.add_argument("keys", type=keys.key, nargs="+", metavar="KEY", help="words with dots between them")
    arguments = parser.parse_args()

    with connect("topics/try_pattern.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        # An exchange for this trial alone; auto_delete lets RabbitMQ delete it with its last binding.
        exchange = f"topics.trial.{queue}"
        channel.exchange_declare(exchange, exchange_type="topic", durable=True, auto_delete=True)
        channel.queue_bind(queue, exchange, routing_key=arguments.pattern)
        for key in arguments.keys:
            try:
                channel.basic_publish(exchange, routing_key=key, body=b"", mandatory=True)
            except UnroutableError:
                console.say(f" [ ] {key!r} does not match")
            else:
                console.say(f" [x] {key!r} matches")


if __name__ == "__main__":
    console.run(main)
