"""How fast RabbitMQ is from Python, measured: ours and its peers, in turn, on one broker."""
