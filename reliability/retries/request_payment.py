"""Request a payment. Its pair is pay.py; either may start first.

python reliability/retries/request_payment.py rent
python reliability/retries/request_payment.py slow rent          the bank is busy twice
python reliability/retries/request_payment.py never              the bank is always busy
python reliability/retries/request_payment.py closed account     the bank says no
python reliability/retries/request_payment.py --count 100 rent
"""

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the payment; - reads standard input")
    parser.add_argument(
        "--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="request it N times, numbered"
    )
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="rent")
    total = arguments.count

    with Publisher("retries/request_payment.py", Settings.load(), declare=topology.declare) as publisher:
        for number in range(1, total + 1):
            body = messages.encode_text(text if total == 1 else f"{number}: {text}")
            publisher.publish("", topology.PAYMENTS, body, messages.properties("text/plain"))
        publisher.flush()
    console.say(f" [x] Requested {text!r}" if total == 1 else f" [x] Requested {text!r}, {total} times")


if __name__ == "__main__":
    console.run(main)
