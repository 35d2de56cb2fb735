"""Send dead letters back to the queues in which they died: all of them, or those that fit. None is lost on the way.

python reliability/dead_letters/replay_dead_letters.py
python reliability/dead_letters/replay_dead_letters.py --reason rejected --limit 10
python reliability/dead_letters/replay_dead_letters.py --id 1b2c3d4e               as inspect_dead_letters.py shows it
python reliability/dead_letters/replay_dead_letters.py --from dead_letters.orders
python reliability/dead_letters/replay_dead_letters.py --queue retries.payments.dead_letters --to retries.payments
"""

import argparse

import deaths
import topology
from pika import BasicProperties
from pika.exceptions import NackError, UnroutableError

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure

LINGER_SECONDS = 0.2
"""How long to wait after the last acknowledgement. RabbitMQ passes acknowledgements on to a quorum queue in small
groups. Those that it has not passed on when the channel closes are lost: their messages would be replayed again."""


class NotReplayed(Failure):
    exit_code = ExitCode.UNROUTABLE


def wanted(death: deaths.Death | None, properties: BasicProperties, arguments: argparse.Namespace) -> bool:
    return (
        arguments.reason in (None, death and death.reason)
        and arguments.origin in (None, death and death.queue)
        and (properties.message_id or "").startswith(arguments.id)
    )


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--queue", help="another queue of dead letters than this example's")
    parser.add_argument("--reason", help="only those that died of this: rejected, expired, maxlen or delivery_limit")
    parser.add_argument("--from", dest="origin", metavar="QUEUE", help="only those that died in this queue")
    parser.add_argument("--id", default="", help="only those whose message id begins like this")
    parser.add_argument("--to", metavar="QUEUE", help="where to, instead of the queues in which they died")
    parser.add_argument("--limit", type=console.whole(1, 1_000_000), default=1_000_000, metavar="N", help="N at most")
    arguments = parser.parse_args()

    done = failed = 0
    with connect("dead_letters/replay_dead_letters.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = arguments.queue or topology.declare_dead_letters(channel)
        # What becomes a dead letter meanwhile comes after these, and stays for the next replay.
        total = channel.queue_declare(queue, passive=True).method.message_count
        for _ in range(total):
            if done == arguments.limit:
                break
            method, properties, body = channel.basic_get(queue)
            if method is None or properties is None or body is None:
                break
            died = next(iter(deaths.deaths(properties)), None)
            if not wanted(died, properties, arguments):
                continue
            target = arguments.to or (died and died.queue)
            if not target:
                console.warn(
                    f"{properties.message_id or '(no id)'} stays: nothing says in which queue it died; see --to"
                )
                continue
            try:
                # To the queue itself: through its old exchange, other queues would get it a second time.
                channel.basic_publish("", target, body, deaths.revived(properties), mandatory=True)
            except (UnroutableError, NackError) as error:
                why = "is not there" if isinstance(error, UnroutableError) else "did not take it"
                console.warn(f"{properties.message_id or '(no id)'} stays: queue {target!r} {why}")
                failed += 1
                continue
            # Confirmed, so it is stored in its queue, and only now it may leave this one. If the script dies between
            # the two, it is in both: a duplicate, which a consumer can recognise by its message id, but no loss.
            channel.basic_ack(method.delivery_tag)
            done += 1
        # What we hold and have not replayed goes back to its place.
        channel.basic_nack(0, multiple=True, requeue=True)
        connection.sleep(LINGER_SECONDS)
    console.say(f" [x] {done} replayed, {total - done} left in {queue}")
    if failed:
        raise NotReplayed(f"{failed} could not be replayed and are still in {queue}; see above")


if __name__ == "__main__":
    console.run(main)
