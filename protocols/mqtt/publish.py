"""Publish one text to any topic, with MQTT. Its pair is any client that subscribes to that topic.

python protocols/mqtt/publish.py mqtt/hall/state "on fire" --retain
cat report.txt | python protocols/mqtt/publish.py mqtt/hall/report -
"""

import client

from common import console, messages
from common.config import Settings
from common.errors import BadMessage
from robust_pika.messages import check_name


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("topic", metavar="TOPIC", help="words with / between them, no + and no #")
    parser.add_argument("words", nargs="+", metavar="WORD", help="the text; - reads standard input")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1, help="1, the default, waits for RabbitMQ's word")
    parser.add_argument("--retain", action="store_true", help="keep it for those who subscribe later")
    arguments = parser.parse_args()
    payload = messages.encode_text(console.body_text(arguments.words))
    check_name("topic", arguments.topic)
    if not arguments.topic:
        raise BadMessage("the topic is empty; write for example mqtt/hall/state")

    with client.connected("mqtt/publish.py", Settings.load()) as link:
        link.publish(arguments.topic, payload, arguments.qos, retain=arguments.retain)
        link.until_done()
    console.say(f" [x] Sent to {arguments.topic!r}")


if __name__ == "__main__":
    console.run(main)
