"""A SelectConnection for in_batches.py and asynchronous.py; the other scripts use common.connection.connect.

A SelectConnection does not wait. While its I/O loop runs, it calls our functions when something has happened.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pika
import topology
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ChannelClosedByClient, ConnectionClosedByClient

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure


class NotConfirmed(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


@contextmanager
def open_channel(name: str, settings: Settings) -> Iterator[Channel]:
    """A channel on a new connection, which is closed after the ``with`` block. The queue is declared.

    If the connection or the channel breaks, ``channel.connection.ioloop.start()`` raises the reason.
    """
    # On a SelectConnection, each declaration would need one more function.
    with connect(name, settings) as waiting:
        topology.declare(waiting.channel())
        parameters = waiting.parameters
    opened: list[Channel] = []

    def on_open(connection: Connection) -> None:
        connection.channel(on_open_callback=on_channel)

    def on_channel(channel: Channel) -> None:
        channel.add_on_close_callback(on_end)
        opened.append(channel)
        connection.ioloop.stop()

    def on_end(_connection_or_channel: object, reason: BaseException) -> None:
        if isinstance(reason, ConnectionClosedByClient):
            connection.ioloop.stop()
        elif not isinstance(reason, ChannelClosedByClient):
            raise reason

    connection = pika.SelectConnection(
        parameters,
        on_open_callback=on_open,
        on_open_error_callback=on_end,
        on_close_callback=on_end,
    )
    # Returns when on_channel has stopped it.
    connection.ioloop.start()
    yield opened[0]
    # Not after Ctrl-C or a failure, which may have come in the middle of a message: the program ends anyway.
    connection.close()
    connection.ioloop.start()
