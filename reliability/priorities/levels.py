"""What a message's priority means to a quorum queue: that has changed twice, and only the version tells."""

NORMAL = 4
"""What a quorum queue of RabbitMQ 4 takes for a message without a priority. A classic queue takes 0."""
URGENT = 9

STRICT = (4, 3, 0)
"""The first RabbitMQ whose quorum queues always take the higher priority first."""
TWO_LEVELS = (4, 0, 0)
"""The first RabbitMQ whose quorum queues take notice of a priority at all."""


def of_quorum_queues(version: tuple[int, int, int]) -> str:
    """The rule in words, for the version of a broker."""
    if version >= STRICT:
        return "32 levels, the highest always first"
    if version >= TWO_LEVELS:
        return "2 levels, two from 5 on for one below"
    return "no levels, first in, first out"
