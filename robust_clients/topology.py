"""The queues of this lesson. The tasks are those of work_queue/: its new_task.py sends them."""

from robust_pika import DeclaringChannel

TASKS = "work_queue.tasks"
ORDERS = "robust_clients.orders"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of tasks; return its name."""
    channel.queue_declare(TASKS, durable=True)
    return TASKS


def declare_orders(channel: DeclaringChannel) -> str:
    """Declare the queue of orders; return its name."""
    channel.queue_declare(ORDERS, durable=True)
    return ORDERS
