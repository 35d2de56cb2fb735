"""Report the oven's temperatures; no program here reads them. Its pair is set_policy.py, which says how many are kept.

python reliability/dead_letters/report_temperatures.py 180 181 182
"""

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("degrees", nargs="+", type=console.whole(-273, 2000), metavar="DEGREES", help="in Celsius")
    degrees = parser.parse_args().degrees

    with Publisher(
        "dead_letters/report_temperatures.py", Settings.load(), declare=topology.declare_temperatures
    ) as publisher:
        for number in degrees:
            publisher.publish("", topology.TEMPERATURES, messages.encode_text(str(number)), messages.properties())
        publisher.flush()
    console.say(f" [x] Reported {', '.join(map(str, degrees))}")


if __name__ == "__main__":
    console.run(main)
