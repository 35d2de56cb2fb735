"""What MQTT's messages meet on the AMQP side: every one is published to amq.topic, with its topic as the routing key.

MQTT's own clients declare nothing. RabbitMQ makes a queue for each subscriber, named mqtt-subscription-<client id>qos1.
"""

from robust_pika import DeclaringChannel, declare_queue

EXCHANGE = "amq.topic"
QUEUE = "mqtt.readings"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of all temperatures, for consumers that speak AMQP; return its name."""
    declare_queue(channel, QUEUE)
    # mqtt/+/temperature, in AMQP's words.
    channel.queue_bind(QUEUE, EXCHANGE, routing_key="mqtt.*.temperature")
    return QUEUE
