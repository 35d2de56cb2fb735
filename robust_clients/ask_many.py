"""Ask rpc/rpc_server.py a thousand times what fib(n) is, with a hundred questions in flight. Start a server first.

python robust_clients/ask_many.py
python robust_clients/ask_many.py --count 500 20      five hundred times, what fib(20) is
"""

import time
from collections import deque

from common import console, messages
from common.config import Settings
from robust_pika import Call, RpcClient

QUEUE = "rpc.requests"
"""The servers declare it: see rpc/topology.py."""
IN_FLIGHT = 100


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("number", nargs="?", default="22", metavar="NUMBER", help="the n of fib(n), 22 by default")
    parser.add_argument("--count", type=console.whole(1, 100_000), default=1000, metavar="N", help="questions")
    arguments = parser.parse_args()
    question = messages.encode_text(arguments.number)
    calls: deque[Call] = deque()
    replies: list[str] = []
    with RpcClient("robust_clients/ask_many.py", Settings.load()) as client:
        console.say(f" [x] Requesting fib({arguments.number}), {arguments.count} times")
        began = time.monotonic()
        for _ in range(arguments.count):
            if len(calls) == IN_FLIGHT:
                replies.append(client.wait(calls.popleft()).text())
            # hold: it is sent together with the next one, or when the client waits.
            calls.append(client.send(QUEUE, question, deadline=60, hold=True))
        replies.extend(client.wait(call).text() for call in calls)
    seconds = time.monotonic() - began
    console.say(f" [.] Got {', '.join(set(replies))}: {len(replies)} replies in {seconds:.1f} s")


if __name__ == "__main__":
    console.run(main)
