"""What MQTT's messages meet on the AMQP side: every one is published to amq.topic, with its topic as the routing key.

MQTT's own clients declare nothing. RabbitMQ makes a queue for each subscriber, named mqtt-subscription-<client id>qos1.
"""

from robust_pika.declaring import DeclaringChannel

EXCHANGE = "amq.topic"
QUEUE = "mqtt.readings"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of all temperatures, for consumers that speak AMQP; return its name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    )
    # mqtt/+/temperature, in AMQP's words.
    channel.queue_bind(QUEUE, EXCHANGE, routing_key="mqtt.*.temperature")
    return QUEUE
