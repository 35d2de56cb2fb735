"""Ask rpc/rpc_server.py a thousand times what fib(n) is, with all questions in flight at once. Start a server first.

python robust_clients/ask_many.py
python robust_clients/ask_many.py --count 100 20      a hundred times, what fib(20) is
"""

import time

from common import console, messages
from common.config import Settings
from robust_pika import RpcClient

QUEUE = "rpc.requests"
"""The servers declare it: see rpc/topology.py."""


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("number", nargs="?", default="22", metavar="NUMBER", help="the n of fib(n), 22 by default")
    parser.add_argument("--count", type=console.whole(1, 10_000), default=1000, metavar="N", help="questions")
    arguments = parser.parse_args()
    question = messages.encode_text(arguments.number)
    with RpcClient("robust_clients/ask_many.py", Settings.load()) as client:
        console.say(f" [x] Requesting fib({arguments.number}), {arguments.count} times")
        began = time.monotonic()
        # hold: do not send it alone, but together with the next ones.
        calls = [client.send(QUEUE, question, deadline=60, hold=True) for _ in range(arguments.count)]
        replies = [client.wait(call).text() for call in calls]
    seconds = time.monotonic() - began
    console.say(f" [.] Got {', '.join(sorted(set(replies)))}: {len(replies)} replies in {seconds:.1f} s")


if __name__ == "__main__":
    console.run(main)
