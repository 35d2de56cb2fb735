"""Let messages die while the dead-letter exchange has no queue, and see which of them appear once it has one.

python reliability/dead_letters/compare_strategies.py
python reliability/dead_letters/compare_strategies.py --count 1000

It declares temporary queues, and deletes them again.
"""

import uuid

import topology
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.connection import connect
from extras.management import Management

STRATEGIES = {
    "at-most-once": {},  # the default
    "at-least-once": {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"},
}
ATTEMPTS = 5


def fill_and_reject(channel: BlockingChannel, queue: str, count: int) -> None:
    for _ in range(count):
        channel.basic_publish("", queue, b"", mandatory=True)
    for _ in range(count):
        method, _properties, _body = channel.basic_get(queue)
        assert method is not None  # they were confirmed, so they are there
        channel.basic_reject(method.delivery_tag, requeue=False)


def retry_until(management: Management, channel: BlockingChannel, queue: str, dead_letters: str, count: int) -> int:
    """Have ``queue`` try again to dead-letter; how many messages have arrived in ``dead_letters``."""
    for attempt in range(ATTEMPTS):
        # By itself it tries again every three minutes. It also does when its policy changes, whatever that says.
        management.set_policy(queue, f"^{queue}$", {"delivery-limit": 100 + attempt}, apply_to="queues")
        channel.connection.sleep(0.5)
        arrived: int = channel.queue_declare(dead_letters, passive=True).method.message_count
        if arrived >= count:
            break
    return arrived


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 10_000), default=10, metavar="N", help="10 by default")
    count = parser.parse_args().count
    settings = Settings.load()
    name = f"{topology.EXCHANGE}.trial.{uuid.uuid4().hex[:8]}"
    # If the script is killed, RabbitMQ deletes them after five minutes.
    temporary = {"x-queue-type": "quorum", "x-expires": 300_000}

    with connect("dead_letters/compare_strategies.py", settings) as connection, Management(settings) as management:
        channel = connection.channel()
        channel.confirm_delivery()
        for strategy, arguments in STRATEGIES.items():
            queue, dead_letters = f"{name}.{strategy}", f"{name}.{strategy}.dead_letters"
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead_letters}
            channel.queue_declare(queue, durable=True, arguments={**temporary, **dead, **arguments})
            try:
                fill_and_reject(channel, queue, count)
                # On 3.10, one that dies in the very moment in which the way opens may wait for the three minutes.
                connection.sleep(1)
                channel.queue_declare(dead_letters, durable=True, arguments=temporary)
                arrived = retry_until(management, channel, queue, dead_letters, count)
                management.delete_policy(queue)
            finally:
                for made in (queue, dead_letters):
                    channel.queue_delete(made)
            console.say(f" [x] {strategy}: {arrived} of {count} are among the dead letters")


if __name__ == "__main__":
    console.run(main)
