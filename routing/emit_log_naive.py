"""Send a log as many programs do, and believe that it has arrived. Do as emit_log_direct.py does instead.

python routing/emit_log_naive.py info the window is open
"""

import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("severity", choices=topology.SEVERITIES, nargs="?", default="info")
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("routing/emit_log_naive.py", Settings.load()) as connection:
        channel = connection.channel()
        # No confirm_delivery(), no mandatory: RabbitMQ drops what it has no queue for, and has no way to say so.
        channel.basic_publish(
            topology.declare(channel),
            routing_key=arguments.severity,
            body=messages.encode_text(text),
            properties=messages.properties("text/plain"),
        )
    console.say(f" [x] Sent {arguments.severity}: {text}")


if __name__ == "__main__":
    console.run(main)
