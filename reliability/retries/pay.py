"""Pay what is requested, until Ctrl-C; what fails is tried again later, and put aside if it fails for good.

python reliability/retries/pay.py
python reliability/retries/pay.py --ladder               wait in queues even where RabbitMQ could do it by itself
python reliability/retries/pay.py --bank-down-for 3      the bank does not answer at first, for 3 seconds

Its pair is request_payment.py; either may start first.
"""

import os
import random
import threading

import history
import topology
from bank import Bank, Permanent, Transient
from breaker import CircuitBreaker

from common import console
from common.config import Settings
from common.connection import connect, server_version
from robust_pika import Message, Outcome, Publisher, consume

DELAYED_RETRY = (4, 3, 1)
"""The first RabbitMQ that keeps back what is rejected. Older ones ignore the arguments, so only the version tells."""


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--ladder", action="store_true", help="wait in queues even on RabbitMQ 4.3 and later")
    parser.add_argument("--bank-down-for", type=console.seconds, default=0.0, metavar="S", help="seconds")
    parser.add_argument("--threshold", type=console.whole(1, 1000), default=3, metavar="N", help="payments in a row")
    parser.add_argument("--pause", type=console.seconds, default=1.0, metavar="S", help="seconds without attempts then")
    arguments = parser.parse_args()
    settings = Settings.load()
    bank = Bank(arguments.bank_down_for)
    stop = threading.Event()
    breaker = CircuitBreaker(arguments.threshold, arguments.pause, stop)
    with connect("retries/pay.py", settings) as connection:
        ladder = arguments.ladder or server_version(connection) < DELAYED_RETRY

    def attempt_of(message: Message) -> int:
        if ladder:
            return history.whole(message.properties, history.ATTEMPT, default=1)
        # Missing at first, and then how often it has come back.
        return history.whole(message.properties, "x-delivery-count", default=0) + 1

    def pay(message: Message) -> Outcome:
        payment, attempt = message.text(), attempt_of(message)
        breaker.wait()
        try:
            bank.pay(payment, attempt)
        except Transient as error:
            breaker.failed(message.properties.message_id or payment)
            if attempt >= topology.MAX_ATTEMPTS:
                return give_up(message, attempt, error)
            outcome = try_later(message, attempt, error)
            console.say(f" [ ] {payment!r}: attempt {attempt} failed, {error}; again later")
            return outcome
        except Permanent as error:
            breaker.succeeded()
            return give_up(message, attempt, error)
        breaker.succeeded()
        console.say(f" [x] Paid {payment!r}")
        return Outcome.ACK

    def try_later(message: Message, attempt: int, error: Exception) -> Outcome:
        if not ladder:
            return Outcome.REQUEUE  # basic.reject(requeue=True): RabbitMQ keeps it back
        queue = topology.waiting(random.choice(topology.delays(attempt)))
        properties = history.with_error(message.properties, str(error), **{history.ATTEMPT: attempt + 1})
        # First it is safe there, and then it is acknowledged here. Killed in between, we leave it in both.
        publisher.publish("", queue, message.body, properties).wait()
        return Outcome.ACK

    def give_up(message: Message, attempt: int, error: Exception) -> Outcome:
        console.say(f" [ ] {message.text()!r}: given up after attempt {attempt}, {error}")
        # Not just rejected: RabbitMQ would not know why.
        properties = history.with_error(message.properties, str(error), **{history.GIVEN_UP_AFTER: attempt})
        publisher.publish("", topology.DEAD_LETTERS, message.body, properties).wait()
        return Outcome.ACK

    declare = topology.declare_ladder if ladder else topology.declare

    with Publisher("retries/pay.py", settings, declare=declare) as publisher:
        consume(
            "retries/pay.py",
            settings,
            declare,
            pay,
            prefetch=1,
            on_ready=lambda _queue: console.say(
                f" [*] Waiting for payments (process {os.getpid()}). To exit press CTRL+C"
            ),
            stop=stop,
        )


if __name__ == "__main__":
    console.run(main)
