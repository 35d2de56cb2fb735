"""The attempts and errors of a payment, in our own headers: RabbitMQ 4 ignores an x-death that is published again."""

import copy

from pika import BasicProperties

ATTEMPT = "x-attempt"
ERRORS = "x-errors"
GIVEN_UP_AFTER = "x-given-up-after"


def whole(properties: BasicProperties, header: str, default: int) -> int:
    """A header that is a number from 0 on. Anybody may send anything, and most do not send it at all."""
    value = (properties.headers or {}).get(header)
    return int(value) if isinstance(value, int) and 0 <= value < 2**31 else default


def errors(properties: BasicProperties) -> list[str]:
    """The errors so far, the first one first."""
    value = (properties.headers or {}).get(ERRORS)
    return [str(error) for error in value] if isinstance(value, list) else []


def with_error(properties: BasicProperties, error: str, **numbers: int) -> BasicProperties:
    """The properties with one more error, and with these headers instead of the attempt."""
    changed = copy.copy(properties)
    changed.headers = {**(properties.headers or {}), ERRORS: [*errors(properties), error]}
    changed.headers.pop(ATTEMPT, None)
    changed.headers.update(numbers)
    return changed
