"""Publish to RabbitMQ and consume from it without losing messages: on top of pika, with every guarantee spelled out."""

import logging

from robust_pika.connecting import (
    Channel,
    Connection,
    connect,
    keep_connected,
    keep_connected_async,
    reach,
    reach_async,
)
from robust_pika.consumer import consume
from robust_pika.declaring import DeclaringChannel, declare_queue
from robust_pika.errors import (
    BadMessage,
    ConnectionFailure,
    ConnectionLost,
    DeliveryError,
    Nacked,
    NotConfirmed,
    NotDelivered,
    Refused,
    Reject,
    Returned,
    RobustPikaError,
    StopConsuming,
)
from robust_pika.hooks import Hooks
from robust_pika.messages import Message
from robust_pika.outcomes import Answer, OnError, Outcome
from robust_pika.publisher import Confirmation, Publisher
from robust_pika.rpc import Call, RpcClient
from robust_pika.settings import Address, ConnectionSettings, Tls

__all__ = [
    "Address",
    "Answer",
    "BadMessage",
    "Call",
    "Channel",
    "Confirmation",
    "Connection",
    "ConnectionFailure",
    "ConnectionLost",
    "ConnectionSettings",
    "DeclaringChannel",
    "DeliveryError",
    "Hooks",
    "Message",
    "Nacked",
    "NotConfirmed",
    "NotDelivered",
    "OnError",
    "Outcome",
    "Publisher",
    "Refused",
    "Reject",
    "Returned",
    "RobustPikaError",
    "RpcClient",
    "StopConsuming",
    "Tls",
    "connect",
    "consume",
    "declare_queue",
    "keep_connected",
    "keep_connected_async",
    "reach",
    "reach_async",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
