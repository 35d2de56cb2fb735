"""Ask what fib(n) is, and wait for the reply. Its pair is rpc_server.py; start at least one of those first.

python rpc/rpc_client.py 30
python rpc/rpc_client.py 10 20 30                     three questions at once
python rpc/rpc_client.py --count 1000 10              a thousand, up to 20 of them at once
python rpc/rpc_client.py --deadline 1 30              waits a second, not longer
"""

import time
from collections import deque

import topology
from client import Call, Client, NoReply, NoServer, ServerError

from common import console, messages
from common.config import Settings
from common.errors import Failure


class Unanswered(Failure):
    """Some of several calls have failed."""

    def __init__(self, failures: list[Failure], total: int) -> None:
        super().__init__(f"{len(failures):,} of {total:,} calls failed; the first: {failures[0]}")
        self.exit_code = failures[0].exit_code


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("numbers", nargs="*", default=["30"], metavar="NUMBER", help="the n of fib(n), 30 by default")
    parser.add_argument("--deadline", type=console.seconds, default=5.0, metavar="S", help="of each call, 5 by default")
    parser.add_argument("--in-flight", type=console.whole(1, 1000), default=20, metavar="N", help="calls at once")
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="ask it all N times")
    arguments = parser.parse_args()
    bodies = {number: messages.encode_text(number) for number in arguments.numbers}
    total = len(arguments.numbers) * arguments.count
    one_by_one = arguments.count == 1
    replies: dict[str, str] = {}
    failures: list[Failure] = []

    def finish(number: str, call: Call) -> None:
        try:
            replies[number] = client.wait(call).text()
            if one_by_one:
                console.say(f" [.] Got {replies[number]}")
        except NoServer:
            raise NoServer("no server is there; start one with: python rpc/rpc_server.py") from None
        except (NoReply, ServerError) as failure:
            failures.append(failure)
            if one_by_one and total > 1:
                console.say(f" [.] No fib({number}): {failure}")

    with Client("rpc/rpc_client.py", Settings.load()) as client:
        in_flight: deque[tuple[str, Call]] = deque()
        if not one_by_one:
            console.say(f" [x] Requesting {', '.join(f'fib({n})' for n in bodies)}, {arguments.count:,} times")
        began = time.monotonic()
        for number in arguments.numbers * arguments.count:
            if len(in_flight) == arguments.in_flight:
                finish(*in_flight.popleft())
            if one_by_one:
                console.say(f" [x] Requesting fib({number})")
            # Nothing else comes between: at the latest, it goes out when we wait.
            call = client.send(topology.QUEUE, bodies[number], deadline=arguments.deadline, hold=True)
            in_flight.append((number, call))
        while in_flight:
            finish(*in_flight.popleft())
        seconds = time.monotonic() - began
    if failures:
        raise failures[0] if total == 1 else Unanswered(failures, total)
    if not one_by_one:
        answers = ", ".join(replies.values())
        console.say(f" [.] Got {answers}, {arguments.count:,} times: {total / seconds:,.0f} calls/s")


if __name__ == "__main__":
    console.run(main)
