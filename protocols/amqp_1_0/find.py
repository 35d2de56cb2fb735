"""Find letters in the journal, a stream, with a condition in SQL that RabbitMQ itself applies. Its pair is send.py.

python protocols/amqp_1_0/find.py "sender = 'berta'"
python protocols/amqp_1_0/find.py "sender LIKE 'b%' AND properties.content_type = 'text/plain'"

It reads on until Ctrl-C.
"""

import client
import topology

from common import console
from common.config import Settings
from common.connection import connect, require
from common.errors import BadMessage
from extras.optional import packages_for

with packages_for(__file__):
    from rabbitmq_amqp_python_client import (
        AddressHelper,
        Event,
        OffsetSpecification,
        StreamConsumerOptions,
        StreamFilterOptions,
    )

SQL_FILTERS = (4, 2)
SQL_FILTER = "sql-filter"


class Finder(client.Watchful):
    """Called for each letter that RabbitMQ has found."""

    understood = False

    def on_link_opened(self, event: Event) -> None:
        super().on_link_opened(event)
        # What RabbitMQ does not understand it leaves out, and sends everything. Its answer tells what it took.
        assert event.link is not None
        taken = event.link.remote_source.filter
        taken.rewind()
        self.understood = bool(taken.next()) and SQL_FILTER in taken.get_dict()

    def on_amqp_message(self, event: Event) -> None:
        letter = event.message
        place = letter.annotations["x-stream-offset"]
        text = bytes(letter.body or b"").decode(errors="replace")
        console.say(f" [x] {place}: {text!r} from {(letter.application_properties or {}).get('sender', 'unknown')}")
        self.delivery_context.accept(event)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("condition", metavar="SQL", help="on application properties, and on properties.<name>")
    arguments = parser.parse_args()
    settings = Settings.load()
    with connect("amqp_1_0/find.py", settings) as amqp:
        require(amqp, SQL_FILTERS, "a filter in SQL")
    with client.connected("amqp_1_0/find.py", settings) as connection:
        options = StreamConsumerOptions(
            offset_specification=OffsetSpecification.first,
            filter_options=StreamFilterOptions(sql=arguments.condition),
        )
        address = AddressHelper.queue_address(topology.JOURNAL)
        finder = Finder()
        consumer = connection.consumer(address, message_handler=finder, consumer_options=options)
        if not finder.understood:
            raise BadMessage("RabbitMQ does not understand the condition; write it as in: sender = 'berta'")
        console.say(" [*] Looking. To exit press CTRL+C")
        consumer.run()


if __name__ == "__main__":
    console.run(main)
